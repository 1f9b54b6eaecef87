#!/usr/bin/env bash
# Linters and tests, in the environment that this script makes when there is none.
#
#   scripts/test.sh                 ruff, mypy, and the tests that take seconds
#   scripts/test.sh --all           the slow ones too: full-size networks, longer training, a real server
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

prepare_environment "demo,report,export,test"
say "ruff"
"$PYTHON_BIN" -m ruff check .
say "mypy"
"$PYTHON_BIN" -m mypy
say "pytest"
"$PYTHON_BIN" -m pytest "${markers[@]}" --durations=15 "$@"
