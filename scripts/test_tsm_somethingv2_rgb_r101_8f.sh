#!/usr/bin/env bash
# TSM ResNet101 on somethingv2 (RGB), 8 segments, 2 clips, 3 crops, full resolution.
# Published: 63.3 % top-1. Weights: python -m pretrained.fetch somethingv2_tsm_resnet101_8f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py somethingv2 \
    --weights="${WEIGHTS:-pretrained/TSM_somethingv2_RGB_resnet101_shift8_blockres_avg_segment8_e45.pth}" \
    --test_segments=8 --twice_sample --test_crops=3 --full_res --batch_size=8 -j 16 \
    "$@"
