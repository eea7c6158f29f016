#!/usr/bin/env bash
# TSN ResNet50 (2D) on kinetics (RGB), 8 segments, 1 clip, centre crop.
# Published: 68.8 % top-1. Weights: python -m pretrained.fetch kinetics_tsn_resnet50_5f; WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_RGB_resnet50_avg_segment5_e50.pth}" \
    --test_segments=8 --test_crops=1 --batch_size=64 -j 16 \
    "$@"
