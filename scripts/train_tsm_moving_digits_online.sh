#!/usr/bin/env bash
# The small streaming network of online_demo/: online TSM on MobileNetV2, from random weights, on the moving digits and a
# ninth class of what is none of them (both made here). Trains it, evaluates it as a clip and frame by frame, measures from
# which certainty on its answers can be relied on, and stores it for the demo, in half precision.
# Expected: 98.83 % top-1 as a clip, and streamed by the mean of the scores so far; threshold 0.6. No GPU needed: 10 minutes
# on one thread of a 2025 server CPU.
#   bash scripts/train_tsm_moving_digits_online.sh [FOLDER [OPTION OF main.py ...]]   # default: quickstart/
# A second run continues where the first was stopped. PYTHON3 picks the Python that .venv is made with.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
shift || true
setup_venv requirements.txt
install_requirements requirements-export.txt
data="$out/digits_and_nothing"

say "1/5 Making the moving digits, extracting frames, writing the lists"
make_videos
"$PYTHON" tools/make_nothing_videos.py --out "$data/videos"
extract_frames
write_lists

run=moving_digits_online
frames=(--root_path "$data/images")
lists=(--train_list "$data/labels/train_videofolder.txt" --val_list "$data/labels/val_videofolder.txt")
say "2/5 Training (MobileNetV2, online shift, 8 frames of 48x48)"
"$PYTHON" main.py digits_and_nothing RGB "${frames[@]}" "${lists[@]}" --num_class 9 --no_flip --fps 25 --root_log "$out/log" --root_model "$out/checkpoint" \
    --store_name "$run" --arch mobilenetv2 --pretrain none --num_segments 8 --input_size 48 \
    --shift --shift_div 8 --shift_place blockres --online --npb --dropout 0.2 \
    --epochs 10 --batch-size 16 --lr 0.02 --no_fc_lr5 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 \
    --eval-freq 1 -j 2 --resume auto "$@"

# The last epoch, not the best by the clips' score, where several are near 100 %: its single frames are the most accurate.
last="$out/checkpoint/$run/ckpt.pth.tar"
test=("${frames[@]}" --test_list "$data/labels/val_videofolder.txt")
say "3/5 Evaluating it as a clip"
"$PYTHON" test_models.py digits_and_nothing "${test[@]}" --weights "$last" --test_segments 8 --batch_size 16 -j 2 \
    --plots "$out/$run"

# One frame in three, as far apart as those of a training clip; the answer is the mean of the scores so far.
say "4/5 Streaming it frame by frame"
"$PYTHON" tools/early_recognition.py digits_and_nothing "${test[@]}" --weights "$last" \
    --png "$out/$run/early_recognition.png" --json "$out/$run/early_recognition.json"

threshold="$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["threshold"])' \
    "$out/$run/early_recognition.json")"
say "5/5 Storing it: $out/$run.onnx (online_demo/weights/ has the one of the repository)"
"$PYTHON" -m online_demo.compile --weights "$last" -o "$out/$run.onnx" --half --threshold "$threshold"
