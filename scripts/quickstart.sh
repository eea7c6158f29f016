#!/usr/bin/env bash
# TSM against its 2D twin on videos that differ only in the direction of time, from nothing: sets up .venv, films moving
# digits, extracts frames, trains TSN and TSM with the same recipe from random weights, evaluates both, and plays the
# validation videos backwards. No GPU needed. Expected: TSM above 90 % top-1, TSN at 50 % or less (97.3 and 31.7 measured).
#   bash scripts/quickstart.sh [FOLDER]      # data and results; default: quickstart/ in the repository
# A second run goes on where the first was stopped. PYTHON3 picks the Python that .venv is made with.
set -euo pipefail
out="${1:-}"
if [ -n "$out" ]; then
    mkdir -p -- "$out"
    out="$(cd -- "$out" && pwd)"
fi
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="${out:-$PWD/quickstart}"
mkdir -p "$out"
setup_venv requirements.txt
started=$SECONDS

data="$out/moving_digits"
say "1/6 Filming the moving digits: video files in $data/videos"
"$PYTHON" tools/make_moving_digits.py --out "$data/videos"

say "2/6 Extracting frames, as for Kinetics"
"$PYTHON" tools/vid2img_kinetics.py "$data/videos" "$data/images" --height 80

say "3/6 Writing the lists"
"$PYTHON" tools/gen_label_kinetics.py "$data/images" --out "$data/labels" --from_folders

epochs=5
run() { echo "TSM_moving_digits_RGB_resnet18$1_avg_segment8_e${epochs}_none_cos"; }
train() {
    "$PYTHON" main.py moving_digits RGB --root_dataset "$out" --root_log "$out/log" --root_model "$out/checkpoint" \
        --arch resnet18 --pretrain none --num_segments 8 --input_size 40 --npb --dropout 0.2 \
        --epochs $epochs --batch-size 16 --lr 0.005 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 \
        --eval-freq 1 -j 2 --resume auto "$@"
}
evaluate() { # run, name of the results, more options
    local weights="$out/checkpoint/$1/ckpt.best.pth.tar" name="$2"
    shift 2
    "$PYTHON" test_models.py moving_digits --root_dataset "$out" --weights "$weights" --test_segments 8 \
        --batch_size 16 -j 2 --scores "$out/$name.npz" --plots "$out/$name" "$@"
}
tsn="$(run "")"
tsm="$(run _shift8_blockres)"

say "4/6 Training TSN, the 2D network (ResNet-18, 8 frames of 40x40, $epochs epochs)"
train
say "5/6 Training TSM, the same network with the shift"
train --shift --shift_div 8 --shift_place blockres

say "6/6 Evaluating both, and TSM on the videos played backwards"
evaluate "$tsn" tsn
evaluate "$tsm" tsm
evaluate "$tsm" tsm_backwards --reverse
"$PYTHON" tools/compare_reversed.py "$out/tsm.npz" "$out/tsm_backwards.npz"

say "Result, $((SECONDS - started)) s after the set-up"
"$PYTHON" tools/compare_runs.py --png "$out/quickstart.png" --title "Moving digits: ResNet-18, 8 frames" \
    "TSN=$out/log/$tsn,$out/checkpoint/$tsn/ckpt.best.pth.tar,$out/tsn.npz" \
    "TSM=$out/log/$tsm,$out/checkpoint/$tsm/ckpt.best.pth.tar,$out/tsm.npz"
