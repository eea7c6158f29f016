#!/usr/bin/env bash
# The small streaming network of online_demo/: online TSM on MobileNetV2, from random weights, on the moving digits (made
# here; see quickstart.sh). Trains it, evaluates it as a clip and frame by frame, and stores it in half precision.
# Expected: 99.79 % top-1 as a clip; streamed, 99.79 % by the mean of the scores so far and 90.83 % by the last frame's
# alone. No GPU needed: about 12 minutes on one thread of a 2025 server CPU.
#   bash scripts/train_tsm_moving_digits_online.sh [FOLDER [OPTION OF main.py ...]]   # default: quickstart/
# A second run continues where the first was stopped. PYTHON3 picks the Python that .venv is made with.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
shift || true
setup_venv requirements.txt

say "1/5 Making the moving digits, extracting frames, writing the lists"
make_videos
extract_frames
write_lists

run=moving_digits_online
say "2/5 Training (MobileNetV2, online shift, 8 frames of 48x48)"
"$PYTHON" main.py moving_digits RGB --root_dataset "$out" --root_log "$out/log" --root_model "$out/checkpoint" \
    --store_name "$run" --arch mobilenetv2 --pretrain none --num_segments 8 --input_size 48 \
    --shift --shift_div 8 --shift_place blockres --online --npb --dropout 0.2 \
    --epochs 10 --batch-size 16 --lr 0.02 --no_fc_lr5 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 \
    --eval-freq 1 -j 2 --resume auto "$@"

# The last epoch, not the best by the clips' score, where several are near 100 %: its single frames are the most accurate.
last="$out/checkpoint/$run/ckpt.pth.tar"
small="$out/$run.pth.tar"
say "3/5 Evaluating it as a clip"
"$PYTHON" test_models.py moving_digits --root_dataset "$out" --weights "$last" --test_segments 8 \
    --batch_size 16 -j 2 --plots "$out/$run"

say "4/5 Storing it in half precision: $small (online_demo/weights/ has the one of the repository)"
"$PYTHON" tools/convert_online.py "$last" "$small" --to ours --half

# One frame in three, as far apart as those of a training clip; the answer is the mean of the scores so far.
say "5/5 Streaming the stored one frame by frame"
"$PYTHON" tools/early_recognition.py moving_digits --root_dataset "$out" --weights "$small" \
    --png "$out/$run/early_recognition.png" --json "$out/$run/early_recognition.json"
