#!/usr/bin/env bash
# Online (uni-directional) TSM MobileNetV2, 8 frames, on Jester: the network that online_demo/ runs frame by frame.
# No figure was published for the streaming model.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py jester RGB \
    --arch mobilenetv2 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.01 --wd 5e-4 --lr_steps 20 40 --epochs 45 --batch-size 64 -j 16 \
    --gd 20 --dropout 0.5 --eval-freq=1 --npb \
    --online \
    "$@"
