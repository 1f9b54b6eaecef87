#!/usr/bin/env bash
# Linters and tests, in the environment that this script makes when there is none.
#
#   scripts/test.sh                 ruff, mypy, and the fast tests, about five minutes on two cores
#   scripts/test.sh --all           the slow ones too: every overlay, full-size networks, exports, a real server
#   scripts/test.sh [--all] tests/losses -k density      what follows goes to pytest
#
# SWINFUSE_DATA=DIR names the folder with the real volumes (docs/data.md); the tests that read them are skipped without it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$REPOSITORY"

markers=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
  markers=(-m "slow or not slow")
  shift
fi

prepare_environment "demo,report,export,dicom,test"
say "ruff"
"$PYTHON_BIN" -m ruff check .
say "mypy"
"$PYTHON_BIN" -m mypy
say "pytest"
# a test file stays in one process, for the sake of what its tests share; each process computes with one thread; where
# one of them dies the suite ends with that error, since pytest-xdist can wait for ever for the tests of a lost process
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$PYTHON_BIN" -m pytest "${markers[@]}" -n "${WORKERS:-2}" --dist loadfile --max-worker-restart 0 --durations=15 "$@"
