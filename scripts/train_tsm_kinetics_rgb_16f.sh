#!/usr/bin/env bash
# TSM ResNet-50, 16 frames, on Kinetics-400.
# Published: 72.6 % top-1 (1 clip, centre crop); 73.7 % top-1 (1 clip, 10 crops).
# Where memory is short, --accum_steps 2 keeps the recipe and halves what a step needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py kinetics RGB \
    --arch resnet50 --num_segments 16 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.02 --wd 1e-4 --lr_steps 20 40 --epochs 50 --batch-size 128 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
