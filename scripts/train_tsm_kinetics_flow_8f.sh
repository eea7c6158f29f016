#!/usr/bin/env bash
# TSM ResNet-50 on optical flow, 8 stacks of 5 frames, on Kinetics-400 (flow by tools/extract_flow.py).
# Published: 55.7 % top-1, 79.5 % top-5 (1 clip, centre crop).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py kinetics Flow \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.02 --wd 1e-4 --lr_steps 20 40 --epochs 50 --batch-size 128 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
