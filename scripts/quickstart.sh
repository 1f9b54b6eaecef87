#!/usr/bin/env bash
# The whole way in minutes: pre-train on CT and MRI, fine-tune on CT, plain and with random contrast, and test both on CT
# and on MRI, for which there were no labels. Small networks and few steps: a demonstration, not evidence.
#
#   scripts/quickstart.sh                 on a cohort made from the MNI152 template; nothing is downloaded for it
#   scripts/quickstart.sh --data DIR      on your volumes: DIR holds a SynthRAD folder (…/Task1/<region>/<id>/{ct,mr,mask}.nii.gz)
#                                         and two Decathlon tasks with the same labels, one of CT, one of MRI
#
#   --ct NAME, --mr NAME      which of several tasks below DIR to use, by their folders' names
#   --output DIR              where everything goes, ./demo unless given
#   --pretrain_epochs N, --epochs N      longer training
#   --fresh                   start over; otherwise steps that have finished are kept, so that a second call is quick
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

data="" output="" ct="" mr="" fresh="" pretrain_epochs="" epochs=""
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data="${2?$1 needs a value}"; shift ;;
    --ct) ct="${2?$1 needs a value}"; shift ;;
    --mr) mr="${2?$1 needs a value}"; shift ;;
    --output) output="${2?$1 needs a value}"; shift ;;
    --pretrain_epochs) pretrain_epochs="${2?$1 needs a value}"; shift ;;
    --epochs) epochs="${2?$1 needs a value}"; shift ;;
    --fresh) fresh=yes ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "$1 is no option; --help lists them" ;;
  esac
  shift
done
[ -z "$data" ] || data="$(cd "$data" 2>/dev/null && pwd)" || die "--data: no such folder"
output="${output:-$REPOSITORY/demo}"
mkdir -p "$output"
output="$(cd "$output" && pwd)"
cd "$REPOSITORY"

# only folders of a folder that an earlier call has marked as its own are removed, and one call at a time is at work in it
own=(cohort pretrain plain random_contrast evaluation report logs)
if [ ! -f "$output/.quickstart" ]; then
  for name in "${own[@]}"; do
    [ ! -e "$output/$name" ] || die "$output/$name is there already and not made by this script: choose another --output"
  done
  : >"$output/.quickstart"
fi
if command -v flock >/dev/null; then
  exec 9>"$output/.quickstart"
  flock --nonblock 9 || die "another call is at work in $output"
fi

prepare_environment "demo,report"
[ -z "$fresh" ] || (cd "$output" && rm -rf "${own[@]}")
mkdir -p "$output/logs"
SECONDS=0
rerun=""

# step NAME TITLE COMMAND…: run once; the marker holds the command, so that other settings run again
step() {
  local name="$1" title="$2" marker="$output/logs/$1.finished" begun=$SECONDS
  shift 2
  # what follows a step that ran anew runs anew
  if [ -n "$rerun" ]; then rm -f "$marker"; fi
  if [ -f "$marker" ] && [ "$(cat "$marker")" = "$*" ]; then
    say "$title: finished earlier, kept (--fresh starts over)"
    return
  fi
  say "$title"
  rm -f "$marker"
  rerun=yes
  if ! "$@" 2>&1 | tee "$output/logs/$name.log" | "$PYTHON_BIN" scripts/quickstart.py progress; then
    tail -n 25 "$output/logs/$name.log" >&2
    die "$title failed; the whole output is in $output/logs/$name.log"
  fi
  printf '%s' "$*" >"$marker"
  printf '   %d s\n' $((SECONDS - begun))
}

bundle() { # bundle NAME ID FILES OVERRIDES…: as MONAI users type it
  local folder="bundles/$1" id="$2" files="$3" list="" file
  shift 3
  for file in ${files//,/ }; do list="$list,'$folder/configs/$file'"; done
  "$PYTHON_BIN" -m monai.bundle run "$id" --config_file "[${list#,}]" "$@"
}

if [ -z "$data" ]; then
  data="$output/cohort"
  step cohort "1/6 making the demonstration cohort: 16 heads, CT and MRI" \
    "$PYTHON_BIN" scripts/quickstart.py cohort "$data"
else
  say "1/6 using $data"
fi
"$PYTHON_BIN" scripts/quickstart.py locate "$data" --ct="$ct" --mr="$mr" >"$output/logs/tasks" || exit 1
{ read -r pairs; read -r ct_task; read -r mr_task; } <"$output/logs/tasks"
printf '   pre-training: %s\n   fine-tuning on CT: %s\n   testing on MRI: %s\n' "$pairs" "$ct_task" "$mr_task"

# a run folder that holds a training cut short is cleared: its checkpoints belong to a run that the marker does not know
train() { # train RUN_DIR BUNDLE FILES OVERRIDES…
  local run_dir="$1" name="$2" files="$3"
  shift 3
  rm -rf "$run_dir"
  bundle "$name" training "$files" --run_dir "$run_dir" "$@"
}

pretrain_epochs="${pretrain_epochs:-10}" epochs="${epochs:-10}"
# one axis keeps the 64 voxels that instance normalisation needs; a quarter of the cube's work
roi="[32,32,64]"
# a coarse grid, so that a small region sees a whole head; ten times the bundle's rate, since the steps are few
both=(--dataset_dir "$ct_task" --roi_size "$roi" --spacing "[6,6,6]" --fold 0 --learning_rate 0.001
  --start pretrained --pretrained_checkpoint "$output/pretrain/model.pt")
# random contrast is learned more slowly than the plain images: more steps, twice the batch and the rate, a shorter warm-up
contrast=(--batch_size 2 --learning_rate 0.002 --contrast_warmup "[30,100]" --average_momentum 0.03
  --max_epochs $((8 * epochs)) --val_interval $((8 * epochs)))
[ "$data" != "$output/cohort" ] || contrast+=(--ct_window "[0,60]") # of the brain
step pretrain "2/6 pre-training on CT and MRI" \
  train "$output/pretrain" pretrain train.json,small.yaml \
  --dataset_dir "$pairs" --roi_size "$roi" --max_epochs "$pretrain_epochs" --val_interval "$pretrain_epochs"
step plain "3/6 fine-tuning SwinFUSE on CT, from the pre-trained checkpoint" \
  train "$output/plain" finetune_msd train.json,small.yaml "${both[@]}" --max_epochs "$epochs" --val_interval "$epochs"
step random_contrast "4/6 the same with random contrast, for MRI" \
  train "$output/random_contrast" finetune_msd train.json,small.yaml,random_contrast.yaml "${both[@]}" "${contrast[@]}"
step evaluation "5/6 testing both on CT and MRI of patients not trained on" bundle ood_eval evaluating evaluate.json,small.yaml \
  --models "{'plain': ['$output/plain'], 'random contrast': ['$output/random_contrast']}" \
  --datasets "['$ct_task','$mr_task']" --mean_mask_datasets "['$ct_task']" --fold 0 --output_dir "$output/evaluation"
step report "6/6 table and pictures" "$PYTHON_BIN" scripts/quickstart.py report "$output"

cat "$output/report/summary.md"
say "finished in $((SECONDS / 60)) min $((SECONDS % 60)) s after installation"
echo "table and pictures: $output/report"
