#!/usr/bin/env bash
# TSM ResNet50 on kinetics (RGB), 16 segments, 1 clip, 10 crops.
# Published: 73.7 % top-1. Weights: python -m pretrained.fetch kinetics_tsm_resnet50_16f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment16_e50.pth}" \
    --test_segments=16 --test_crops=10 --batch_size=4 -j 16 \
    "$@"
