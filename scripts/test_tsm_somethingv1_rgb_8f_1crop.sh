#!/usr/bin/env bash
# TSM ResNet50 on something v1 (RGB), 8 segments, 1 clip, centre crop.
# Published: 45.6 % top-1. Weights: python -m pretrained.fetch something_tsm_resnet50_8f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py something \
    --weights="${WEIGHTS:-pretrained/TSM_something_RGB_resnet50_shift8_blockres_avg_segment8_e45.pth}" \
    --test_segments=8 --test_crops=1 --batch_size=64 -j 16 \
    "$@"
