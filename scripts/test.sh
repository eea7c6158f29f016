#!/usr/bin/env bash
# Sets everything up (first run) and runs the checks: ruff and the test suite. Arguments go to pytest.
#   bash scripts/test.sh                      # all
#   bash scripts/test.sh tests/test_dataset.py -k sampling
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_venv requirements-dev.txt requirements-flow.txt

say "Lint and format (ruff)"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .

say "Tests (pytest)"
exec "$PYTHON" -m pytest "$@"
