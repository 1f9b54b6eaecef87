# Sourced by the other scripts; makes one virtual environment and tunes the process for this work.
#
#   prepare_environment "demo,report"    installs the package, editable, with these extras; python is then $PYTHON_BIN
#
# Variables a user may set:
#   VENV          the environment to make or to use, ./.venv unless given. One that has torch already keeps its torch.
#   PYTHON        the interpreter that makes the environment, python3 unless given
#   TORCH         what pip is asked for when there is no torch yet, e.g. "torch==2.13.0"; the pinned release unless given
#   MONAI         another MONAI release than the pinned one, e.g. "monai==1.6.0"

# A third to a half of the time of a step on the CPU goes into page faults when glibc hands every freed
# activation back to the kernel; these three keep it. Python reads them when it starts.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"
# Huge pages for that memory (Linux, glibc 2.35 or later; others do not read it).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
export PYTHONUNBUFFERED=1
# some readers of medical files change the locale in passing; text stays UTF-8 all the same
export PYTHONUTF8=1

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$REPOSITORY/.venv}"
PYTHON_BIN="$VENV/bin/python"

say() { printf '\n== %s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

prepare_environment() {
  local extras="$1" python="${PYTHON:-python3}" pinned_torch pinned_monai stamp wanted
  if [ ! -x "$PYTHON_BIN" ]; then
    command -v "$python" >/dev/null || die "no $python found: install Python 3.10 or newer, or set PYTHON to it"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
      die "$("$python" --version) found, Python 3.10 or newer needed: set PYTHON to a newer one"
    say "making $VENV"
    "$python" -m venv "$VENV" || die "could not make a virtual environment (on Debian: apt-get install python3-venv)"
  fi

  wanted="$extras ${TORCH:-} ${MONAI:-} $(cat "$REPOSITORY/setup.cfg" "$REPOSITORY/constraints.txt" | cksum)"
  stamp="$VENV/swinfuse-installed"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi

  say "installing (several minutes the first time)"
  # torch first and alone, so that nothing else chooses its build
  pinned_torch="$(grep '^torch==' "$REPOSITORY/constraints.txt")"
  pinned_monai="$(grep '^monai==' "$REPOSITORY/constraints.txt")"
  if ! "$PYTHON_BIN" -c 'import torch' 2>/dev/null; then
    "$PYTHON_BIN" -m pip install --quiet "${TORCH:-$pinned_torch}" || die "torch could not be installed; set TORCH"
  fi
  {
    grep -v -e '^torch==' -e '^monai==' "$REPOSITORY/constraints.txt"
    "$PYTHON_BIN" -c 'from importlib.metadata import version; print("torch==" + version("torch"))'
    echo "${MONAI:-$pinned_monai}"
  } >"$VENV/swinfuse-constraints.txt"
  "$PYTHON_BIN" -m pip install --quiet --constraint "$VENV/swinfuse-constraints.txt" \
    --editable "$REPOSITORY${extras:+[$extras]}" || die "the installation failed; the lines above say why"
  printf '%s' "$wanted" >"$stamp"
}
