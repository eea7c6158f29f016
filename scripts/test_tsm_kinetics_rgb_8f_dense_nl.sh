#!/usr/bin/env bash
# TSM ResNet50 NL on kinetics (RGB), 8 segments, 10 dense clips, 3 crops, full resolution.
# Published: 75.6 % top-1. Weights: python -m pretrained.fetch kinetics_tsm_resnet50_8f_dense_nl; WEIGHTS=FILE for
# others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense_nl.pth}" \
    --test_segments=8 --dense_sample --test_crops=3 --full_res --batch_size=2 -j 16 \
    "$@"
