#!/usr/bin/env bash
# Everything that needs a GPU, in one go: parity of every backend that loads, then the bench of the
# real size. JSON and logs land in $OUT (default build/gpu); copy what is to be kept to
# tests/gpu/results.
#
#   tests/gpu/run.sh [--quick] [--only NAME ...]
#
# WHEELS names a folder of wheels for a machine that reaches no package index.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
if [ -n "${WHEELS:-}" ]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
fi
# From the clone where the package is not installed: each root holds one package.
export PYTHONPATH="export:runtime:calibration:robot:.${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m tests.gpu.measure --out "$OUT" "$@"
