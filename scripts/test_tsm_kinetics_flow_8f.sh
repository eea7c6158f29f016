#!/usr/bin/env bash
# TSM ResNet50 on kinetics (Flow), 8 segments, 1 clip, centre crop.
# Published: 55.7 % top-1, 79.5 % top-5. Weights: python -m pretrained.fetch kinetics_tsm_resnet50_flow_8f;
# WEIGHTS=FILE for others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:-pretrained/TSM_kinetics_Flow_resnet50_shift8_blockres_avg_segment8_e50.pth}" \
    --test_segments=8 --test_crops=1 --batch_size=64 -j 16 \
    "$@"
