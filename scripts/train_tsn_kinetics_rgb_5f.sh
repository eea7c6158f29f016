#!/usr/bin/env bash
# TSN, the 2D network: ResNet-50, 5 frames, on Kinetics-400.
# Published: 70.6 % top-1 (10 dense clips, 3 crops, full resolution, 8 segments); 68.8 % top-1 (1 clip, centre crop, 8
# segments); 69.9 % top-1 (1 clip, 10 crops, 8 segments).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py kinetics RGB \
    --arch resnet50 --num_segments 5 --consensus_type=avg \
    --lr 0.02 --wd 1e-4 --lr_steps 20 40 --epochs 50 --batch-size 128 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
