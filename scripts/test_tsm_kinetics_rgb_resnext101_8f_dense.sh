#!/usr/bin/env bash
# TSM ResNext101 on kinetics (RGB), 8 segments, 10 dense clips, 3 crops, full resolution.
# Published: 76.3 % top-1. Its weights were not released: WEIGHTS=FILE names yours.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" test_models.py kinetics \
    --weights="${WEIGHTS:?set WEIGHTS to a checkpoint}" \
    --test_segments=8 --dense_sample --test_crops=3 --full_res --batch_size=2 -j 16 \
    "$@"
