#!/usr/bin/env bash
# TSM ResNet50 on kinetics (RGB), 8 segments, 1 clip, 10 crops.
# Published: 72.8 % top-1. Weights: python -m pretrained.fetch kinetics_tsm_resnet50_8f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth}" \
    --test_segments=8 --test_crops=10 --batch_size=8 -j 16 \
    "$@"
