#!/usr/bin/env bash
# Sets everything up (first run) and runs the checks: ruff and the test suite. Arguments go to pytest.
#   bash scripts/test.sh                      # all
#   bash scripts/test.sh tests/test_dataset.py -k sampling
# What only some tests need (OpenCV, ONNX Runtime, TVM; a display, a browser, axe-core) is installed where possible;
# elsewhere a line says so and they are skipped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source scripts/system_packages.sh
setup_venv requirements-dev.txt
for file in requirements-flow.txt requirements-demo.txt requirements-export.txt requirements-tvm.txt; do
    install_requirements "$file" || echo "note: $file cannot be installed here: the tests that need it are skipped"
done
install_system_packages
cache_axe
if "$PYTHON" -m pip show -q opencv-python 2>/dev/null && ! "$PYTHON" -c 'import cv2' 2>/dev/null; then
    echo "note: the libraries of OpenCV's windows are missing: taking the OpenCV without windows"
    "$PYTHON" -m pip uninstall -qy opencv-python
    "$PYTHON" -m pip install --disable-pip-version-check --progress-bar off -q opencv-python-headless
fi

say "Lint and format (ruff)"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .

say "Tests (pytest)"
exec "$PYTHON" -m pytest "$@"
