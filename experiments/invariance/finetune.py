"""Fine-tuning from the pre-trainings of arms.py: labels in CT alone, few or all, tested on other CT, on MRI and PET.

    python experiments/invariance/finetune.py train SMALL RUNS OUT --cases "[2,0]" --steps 300
    python experiments/invariance/finetune.py train SMALL RUNS OUT_OF_ITS_OWN --task sarcoma
    python experiments/invariance/finetune.py collect OUT "CPU, 300 steps"

SMALL is what `arms.py prepare` wrote, RUNS the folder of `arms.py train`. Each encoder, recipe and number of labelled
cases (0: all) is one fine-tuning by the bundle's command, in OUT/<recipe>/<cases>/<encoder>/<seed>; one that has ended
is not done again. `collect` writes the Dice of every case and structure to OUT/cases.csv, for report.py.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import arms
import fire
import pandas as pd

from swinfuse_components.data import read_task
from swinfuse_components.evaluation.probing import recorded_settings
from swinfuse_components.evaluation.tables import write_csv

MSD = "bundles/finetune_msd/configs/"
# the data set that is learned from, then others to test on
TASKS = {"abdomen": [arms.CT, arms.MRI], "sarcoma": arms.SARCOMA}
RECIPES = {"plain": "experiments/carry_across/plain.yaml", "random_contrast": MSD + "random_contrast.yaml"}


def _subset(task: Path, items: Sequence[Mapping], target: Path) -> str:
    """Copy cases of a task to a data set of their own, and return its folder."""
    content, copied = json.loads((task / "dataset.json").read_text()), []
    for item in items:
        copied.append({key: os.path.relpath(str(item[key]), task) for key in ("image", "label")})
        for name in copied[-1].values():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(task / name, target / name)
    (target / "dataset.json").write_text(json.dumps({**content, "numTraining": len(copied), "training": copied}))
    return str(target)


def _folds(training: Sequence[Mapping], first: Mapping, cases: int, seed: int, target: Path) -> int:
    """Write a run's folds: one other case for its log, ``cases`` (0: all) to learn from; return how many."""
    # another seed learns from other cases
    start = seed * cases % len(training)
    kept = [*training[start:], *training[:start]][: cases or len(training)]
    listed = [
        {"image": [str(item["image"])], "label": str(item["label"]), "patient": item["patient"], "fold": fold}
        for fold, side in ((0, [first]), (1, kept))
        for item in side
    ]
    target.write_text(json.dumps({"training": listed}, default=str))
    return len(kept)


def main(
    data: str,
    runs: str,
    out: str,
    task: str = "abdomen",
    encoders: Sequence[str] = ("random", "paper", "dense", "dense_pairs"),
    recipes: Sequence[str] = ("random_contrast", "plain"),
    cases: Sequence[int] = (2, 0),
    seeds: int = 1,
    steps: int = 200,
    spacing: float = 4.0,
    batch_size: int = 4,
    learning_rate: float = 1e-3,
    overlap: float = 0.25,
    precision: str = "float32",
    at_once: int = 1,
    device: str = "cpu",
) -> None:
    """Fine-tune and test every combination; see the head of this file.

    Args:
        data: folder that ``arms.py prepare`` wrote.
        runs: folder of the pre-trainings.
        out: folder of the fine-tunings of one task.
        task: ``abdomen``, tested on a fold of the CT and all MRI, or ``sarcoma``, tested on CT, MRI and PET of the
            patients that no pre-training learned from.
        encoders: arms to start from; ``random`` starts from scratch.
        recipes: ``plain`` or ``random_contrast``.
        cases: labelled CT to learn from, 0 for all of the fold.
        seeds: how many; seed k starts from pre-training k and learns from cases of its own.
        steps: of a fine-tuning.
        spacing: of the grid, in mm.
        batch_size: regions of a step.
        learning_rate: after the warm-up.
        overlap: of the windows at test time.
        precision: of the network on a CPU: ``float32`` or ``bfloat16``.
        at_once: number of processes.
        device: ``cuda`` or ``cpu``.
    """
    folder, source = Path(out).resolve(), Path(data).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found, began = arms.runs_of(runs), time.time()
    tasks = [source / name for name in TASKS[task]]
    listed = [read_task(path)[1] for path in tasks]
    everybody, seen = {item["patient"] for item in listed[0]}, arms.learned_from(found)
    tested = set(arms.held_out(source)) if task == "abdomen" else everybody - seen
    training = [item for item in listed[0] if item["patient"] not in tested]
    tests = []
    for path, items in zip(tasks, listed):
        chosen = [item for item in items if item["patient"] in tested or item["patient"] not in everybody]
        tests.append(_subset(path, chosen, folder / "held_out" / path.name))
    first = next(item for item in listed[0] if item["patient"] in tested)
    network = {**recorded_settings(next(iter(found.values()))[0]), **arms.NO_MODULE}
    jobs = [(s, n, r, e) for s in range(seeds) for n in cases for r in recipes for e in encoders]

    def work(job: tuple[int, int, str, str]) -> None:
        seed, number, recipe, encoder = job
        run = folder / recipe / str(number) / encoder / str(seed)
        run.parent.mkdir(parents=True, exist_ok=True)
        summary = run / "test" / "summary.md"  # an evaluation writes it last
        log = run.parent / f"{seed}.log"
        if not (run / "model.pt").is_file():
            folds = folder / f"folds_{seed}_{number}.json"
            per_epoch = math.ceil(_folds(training, first, number, seed, folds) / batch_size)
            epochs = max(steps // per_epoch, 1)
            settings = {
                "dataset_dir": str(tasks[0]),
                "fold": 0,
                "fold_file": str(folds),
                "run_dir": str(run),
                "seed": seed,
                "device": f"$torch.device('{device}')",
                "amp": device != "cpu",
                "feature_size": network["feature_size"],
                "roi_size": [network["roi_size"]] * 3,
                "window_size": network["window_size"],
                "dim": "none",
                **({"norm_name": ["group", {"num_groups": 4}]} if network["roi_size"] < 64 else {}),
                "use_checkpoint": False,
                "spacing": [spacing] * 3,
                "batch_size": min(batch_size, number or batch_size),
                "crops": max(batch_size // number, 1) if number else 1,
                "views": 1,
                "learning_rate": learning_rate,
                "max_epochs": epochs,
                "val_interval": epochs,
                "warmup_epochs": max(epochs // 20, 1),
                "overlap": overlap,
                "num_workers": 0,
                "check_contents": False,
                # over a tenth of the training, as in the trainings of docs/carry_across.md
                "average_momentum": round(10 / steps, 4),
                **({"contrast_warmup": [steps // 10, steps // 4]} if recipe == "random_contrast" else {}),
            }
            if encoder != "random":
                settings |= {"start": "pretrained", "pretrained_checkpoint": str(found[encoder][seed])}
            files = [MSD + "train.json", RECIPES[recipe], *([MSD + "bfloat16.yaml"] if precision == "bfloat16" else [])]
            arms.run_bundle("finetune_msd", "training", files, settings, log)
        if (run / "model.pt").is_file() and not summary.is_file():
            settings = {
                "models": [str(run)],
                "datasets": tests,
                "output_dir": str(summary.parent),
                "device": f"$torch.device('{device}')",
                "overlap": overlap,
                "keep_predictions": False,
                "baselines": [],
                "precision": precision,
                "class_mapping": "same",
                "fold": None,
            }
            arms.run_bundle("ood_eval", "evaluating", ["bundles/ood_eval/configs/evaluate.json"], settings, log)
        print(f"{time.time() - began:5.0f} s  {run.relative_to(folder)}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, jobs))


def collect(out: str, run: str) -> None:
    """Join the scores of the fine-tunings that have been tested in OUT/cases.csv, under the name of this ``run``."""
    tables = []
    for test in sorted(path.parent for path in Path(out).glob("*/*/*/*/test/summary.md")):
        recipe, labelled, encoder, seed = test.relative_to(out).parts[:4]
        table = pd.read_csv(test / "cases.csv")[["target", "case", "label", "dice"]].round(4)
        where = {"run": run, "recipe": recipe, "labelled": {"0": "all"}.get(labelled, labelled)}
        where |= {"encoder": encoder, "seed": seed}
        tables.append(table.assign(**where)[[*where, *table.columns]])
    write_csv(pd.concat(tables).rename(columns={"label": "class"}), Path(out) / "cases.csv")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fire.Fire({"train": main, "collect": collect})
