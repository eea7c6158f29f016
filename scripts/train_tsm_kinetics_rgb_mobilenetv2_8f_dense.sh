#!/usr/bin/env bash
# TSM MobileNetV2, 8 frames, dense sampling, on Kinetics-400.
# Published: 69.5 % top-1 (10 dense clips, 3 crops, full resolution).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py kinetics RGB \
    --arch mobilenetv2 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.02 --wd 1e-4 --lr_steps 40 80 --epochs 100 --batch-size 128 -j 16 --dense_sample \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    "$@"
