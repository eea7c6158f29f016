#!/usr/bin/env bash
# TSM on your own videos, from ImageNet weights: extracts frames, writes lists, trains, tests, and shows where it errs.
# For a hundred clips or so; docs/real_clips.md says how the recipe was found, and what else was tried.
#   bash scripts/finetune_own.sh VIDEOS OUT [OPTION OF main.py ...]      # VIDEOS/CLASS/NAME.mp4, one action a file
# Clips cut from one recording look alike, and must not be in training and validation both. Where the beginning of the
# name says the recording: GROUP='^.{15}' bash scripts/finetune_own.sh ... (a regular expression; see --group of
# tools/gen_label_kinetics.py). Where left and right carry the label, add --no_flip. NET=tsn trains without the shift, to
# see what order is worth; NET=online a network that can run frame by frame. PRETRAIN is a file of ImageNet weights
# (default: downloaded), PYTHON the Python to use. Frames are 128x128, for a CPU; with a GPU, add --input_size 224.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: bash scripts/finetune_own.sh VIDEOS OUT [OPTION OF main.py ...]" >&2
    exit 2
fi
videos="$(realpath -- "$1")"
mkdir -p -- "$2"
out="$(realpath -- "$2")"
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python}"
net="${NET:-tsm}"
case "$net" in
    tsn) shift_options=() ;;
    tsm) shift_options=(--shift) ;;
    online) shift_options=(--shift --online) ;;
    *)
        echo "NET is tsn, tsm or online, got '$net'" >&2
        exit 2
        ;;
esac

"$PYTHON" tools/vid2img_kinetics.py "$videos" "$out/frames" --height 256
"$PYTHON" tools/gen_label_kinetics.py "$out/frames" --out "$out/labels" --from_folders ${GROUP:+--group "$GROUP"}
data=(--root_path "$out/frames" --num_class "$(grep -c . "$out/labels/category.txt")")
"$PYTHON" main.py own RGB "${data[@]}" --store_name "$net" --root_log "$out/log" --root_model "$out/checkpoint" \
    --train_list "$out/labels/train_videofolder.txt" --val_list "$out/labels/val_videofolder.txt" \
    --arch mobilenetv2 --pretrain "${PRETRAIN:-imagenet}" --num_segments 8 --input_size 128 "${shift_options[@]}" --npb \
    --epochs 30 --batch-size 8 --lr 0.005 --no_fc_lr5 --lr_type cos --warmup_epochs 1 --wd 1e-4 --gd 20 --dropout 0.5 \
    --eval-freq 1 -j 2 --resume auto --plots "$out/$net" "$@"
"$PYTHON" test_models.py own "${data[@]}" --test_list "$out/labels/val_videofolder.txt" \
    --weights "$out/checkpoint/$net/ckpt.pth.tar" -j 2 --predictions "$out/$net/predictions.csv" --plots "$out/$net"
