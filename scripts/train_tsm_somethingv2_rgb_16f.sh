#!/usr/bin/env bash
# TSM ResNet-50, 16 frames, on something-something v2.
# Published: 63.1 % top-1 (2 clips, 3 crops, full resolution).
# Where memory is short, --accum_steps 2 keeps the recipe and halves what a step needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py somethingv2 RGB \
    --arch resnet50 --num_segments 16 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.01 --wd 5e-4 --lr_steps 20 40 --epochs 45 --batch-size 64 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
