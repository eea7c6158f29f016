#!/usr/bin/env bash
# TSM ResNet-50, 8 frames, on something-something v1.
# Published: 45.6 % top-1 (1 clip, centre crop); 47.2 % top-1 (2 clips, 3 crops, full resolution).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py something RGB \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.01 --wd 5e-4 --lr_steps 20 40 --epochs 45 --batch-size 64 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
