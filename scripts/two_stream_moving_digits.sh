#!/usr/bin/env bash
# Two streams from video files alone: frames and optical flow of the moving digits (see quickstart.sh), a TSM on each,
# their scores saved and fused. The RGB stream is the quick start's, if that ran in the same folder. No GPU needed.
#   bash scripts/two_stream_moving_digits.sh [FOLDER]      # default: quickstart/ in the repository
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
setup_venv requirements.txt requirements-flow.txt

say "1/5 Video files, frames and lists"
make_videos
extract_frames
write_lists
say "2/5 Optical flow (DIS; these digits move by a pixel or two a frame)"
"$PYTHON" tools/extract_flow.py "$data/images" "$data/flow" --layout moving_digits --bound 4
"$PYTHON" tools/gen_label_kinetics.py "$data/flow" --out "$data/labels" --from_folders --flow
say "3/5 Training the RGB stream"
train TSM RGB "${shift_options[@]}"
say "4/5 Training the flow stream"
train TSM_flow Flow "${shift_options[@]}" --epochs 3
say "5/5 Scores of each, and fused"
evaluate TSM tsm
evaluate TSM_flow tsm_flow
"$PYTHON" tools/fuse_scores.py "$out/tsm.npz" "$out/tsm_flow.npz" --coeff 1 1
