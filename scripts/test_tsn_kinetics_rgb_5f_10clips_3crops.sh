#!/usr/bin/env bash
# TSN ResNet50 (2D) on kinetics (RGB), 8 segments, 10 dense clips, 3 crops, full resolution.
# Published: 70.6 % top-1. Weights: python -m pretrained.fetch kinetics_tsn_resnet50_5f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_RGB_resnet50_avg_segment5_e50.pth}" \
    --test_segments=8 --dense_sample --test_crops=3 --full_res --batch_size=2 -j 16 \
    "$@"
