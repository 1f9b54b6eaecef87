#!/usr/bin/env bash
# Serve bundles in MONAI Label: they segment and train on a folder of images, for 3D Slicer, OHIF or REST clients.
#
#   scripts/label_server.sh BUNDLE... IMAGES [--pretrained CHECKPOINT] [--port 8000] [--host 127.0.0.1] [--app DIR] [--fresh]
#
#   BUNDLE   one or more packages built by scripts/package.py (or installed bundles' folders with models/model.pt); each
#            needs a name of its own
#   IMAGES   a folder of .nii.gz volumes; labels that users submit are kept in IMAGES/labels. Or the address of a DICOMweb
#            server, http://…, see docs/distribution.md
#   --pretrained CHECKPOINT   of the bundle `pretrain`: training sessions start from it. To segment with what they
#            have learnt, start the server again without --fresh: it finds weights only when it starts.
#   --app    where the server keeps its working copy of the bundle, ./.label-app unless given. Training in the server
#            replaces the copy's models/model.pt, never the one in BUNDLE. Copies are kept from call to call.
#   --fresh  throw that copy away and begin with BUNDLE again
#
# The environment, ./.venv-label or $VENV, is made on the first call: about two minutes and 3 GB.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(dirname "$here")"
venv="${VENV:-$repository/.venv-label}"

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

places=()
while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do
  places+=("$1")
  shift
done
[ ${#places[@]} -ge 2 ] || die "expected bundles and a folder of images: scripts/label_server.sh BUNDLE... IMAGES"
images="${places[-1]}"
unset 'places[-1]'
[ "${images#http}" != "$images" ] || images="$(cd "$images" 2>/dev/null && pwd)" || die "$images is no folder; expected images"
host=127.0.0.1 port=8000 app="$repository/.label-app" pretrained="" fresh=""
while [ $# -gt 0 ]; do
  case "$1" in
    --fresh) fresh=yes; shift; continue ;;
    --host) host="${2?$1 needs a value}" ;;
    --port) port="${2?$1 needs a value}" ;;
    --app) app="${2?$1 needs a value}" ;;
    --pretrained) pretrained="${2?$1 needs a value}" ;;
    *) die "$1 is no option; expected --pretrained, --host, --port or --app" ;;
  esac
  shift 2
done
bundles=() names=()
for place in "${places[@]}"; do
  bundle="$(cd "$place" 2>/dev/null && pwd)" || die "$place is no folder; expected a bundle"
  for file in configs/inference.json configs/train.json configs/metadata.json; do
    [ -f "$bundle/$file" ] || die "$bundle/$file: missing; the server reads it"
  done
  [ -n "$pretrained" ] || [ -f "$bundle/models/model.pt" ] ||
    echo "note: $bundle/models/model.pt is missing: the server can train, not segment"
  case " ${names[*]-} " in *" $(basename "$bundle") "*) die "two bundles are called $(basename "$bundle")" ;; esac
  bundles+=("$bundle") names+=("$(basename "$bundle")")
done

wanted="$(cat "$here"/label_server/requirements*.txt | cksum)"
if [ "$(cat "$venv/label-installed" 2>/dev/null)" != "$wanted" ]; then
  echo "making $venv (about two minutes)"
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet -r "$here/label_server/requirements.txt"
  "$venv/bin/python" -m pip install --quiet --no-deps -r "$here/label_server/requirements-no-deps.txt"
  printf '%s' "$wanted" >"$venv/label-installed"
fi
if [ ! -d "$app/lib" ]; then
  mkdir -p "$app"
  cp -r "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')/monailabel/sample-apps/monaibundle/." "$app"
fi
for bundle in "${bundles[@]}"; do
  if [ ! -d "$bundle/scripts" ]; then
    # a bundle as it lies in this repository: its code must be installed beside the server
    "$venv/bin/python" -m pip install --quiet --no-deps --editable "$repository"
  fi
  model="$app/model/$(basename "$bundle")"
  [ -z "$fresh" ] || rm -rf "$model"
  if [ ! -d "$model" ]; then
    mkdir -p "$model/models"
    cp -r "$bundle/." "$model"
    "$venv/bin/python" "$here/label_server/prepare.py" "$model" ${pretrained:+"$pretrained"}
  else
    echo "going on with $model (--fresh begins again with $bundle)"
  fi
done

export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}" PYTHONUNBUFFERED=1
export PYTHONPATH="$here/label_server${PYTHONPATH:+:$PYTHONPATH}"
# zoo_source ngc: the default asks the network for a list and stops without it, even for a local folder
exec "$venv/bin/python" -m monailabel.main start_server --app "$app" --studies "$images" \
  --conf models "$(IFS=,; echo "${names[*]}")" --conf zoo_source ngc --conf sam2 false --host "$host" --port "$port"
