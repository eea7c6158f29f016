#!/usr/bin/env bash
# TSM ResNet-50, 8 frames, fine-tuned on HMDB51 from Kinetics (python -m pretrained.fetch kinetics_tsm_resnet50_8f).
# Split 1; for the others: --split 2 --suffix split2, --split 3 --suffix split3.
# The paper (arXiv:1811.08383, table 2) gives 73.5 % top-1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" main.py hmdb51 RGB \
    --arch resnet50 --num_segments 8 --consensus_type=avg \
    --shift --shift_div=8 --shift_place=blockres \
    --lr 0.001 --wd 1e-4 --lr_steps 10 20 --epochs 25 --batch-size 64 -j 16 \
    --gd 20 --dropout 0.8 --eval-freq=1 \
    --tune_from=pretrained/TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth \
    "$@"
