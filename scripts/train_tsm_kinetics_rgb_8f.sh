#!/usr/bin/env bash
# TSM ResNet-50, 8 frames, on Kinetics-400.
# Published: 71.2 % top-1 (1 clip, centre crop); 72.8 % top-1 (1 clip, 10 crops).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py kinetics RGB \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.02 --wd 1e-4 --lr_steps 20 40 --epochs 50 --batch-size 128 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
