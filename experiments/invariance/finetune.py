"""Fine-tuning from the pre-trainings of arms.py: labels in CT alone, few or all, tested on other CT and on MRI.

    python experiments/invariance/finetune.py train SMALL RUNS OUT --cases "[2,0]" --steps 300
    python experiments/invariance/finetune.py collect OUT

SMALL is what `arms.py prepare` wrote, RUNS the folder of `arms.py train`. Each encoder, recipe and number of labelled
cases (0: all) is one fine-tuning by the bundle's command, in OUT/<recipe>/<cases>/<encoder>/<seed>; one that has ended
is not done again. `collect` writes the Dice of every case and structure to OUT/cases.csv, for report.py.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import arms
import fire
import pandas as pd

from swinfuse_components.data import load_fold, read_task, split_folds
from swinfuse_components.evaluation.probing import recorded_settings
from swinfuse_components.evaluation.tables import write_csv

MSD = "bundles/finetune_msd/configs/"
RECIPES = {"plain": "experiments/carry_across/plain.yaml", "random_contrast": MSD + "random_contrast.yaml"}


def _held_out(task: Path, items: Sequence[Mapping], target: Path) -> str:
    """Copy the fold to test on to a data set of its own, and return its folder."""
    content, held = json.loads((task / "dataset.json").read_text()), []
    for item in load_fold(items, 0, "validation"):
        held.append({key: os.path.relpath(str(item[key]), task) for key in ("image", "label")})
        for name in held[-1].values():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(task / name, target / name)
    (target / "dataset.json").write_text(json.dumps({**content, "numTraining": len(held), "training": held}))
    return str(target)


def _folds(items: Sequence[Mapping], cases: int, seed: int, target: Path) -> int:
    """Write a run's folds: one case of fold 0 for its log, ``cases`` others (0: all) to learn from; return how many."""
    training = load_fold(items, 0, "training")
    # another seed learns from other cases
    start = seed * cases % len(training)
    kept = (training[start:] + training[:start])[: cases or len(training)]
    listed = [
        {"image": [str(item["image"])], "label": str(item["label"]), "patient": item["patient"], "fold": fold}
        for fold, side in ((0, load_fold(items, 0, "validation")[:1]), (1, kept))
        for item in side
    ]
    target.write_text(json.dumps({"training": listed}, default=str))
    return len(kept)


def main(
    data: str,
    runs: str,
    out: str,
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
        out: folder of the fine-tunings.
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
    items = split_folds(read_task(source / arms.CT)[1], 5, seed=0)
    held_out = _held_out(source / arms.CT, items, folder / "held_out")
    network = {**recorded_settings(next(iter(found.values()))[0]), **arms.NO_MODULE}
    jobs = [(s, n, r, e) for s in range(seeds) for n in cases for r in recipes for e in encoders]

    def work(job: tuple[int, int, str, str]) -> None:
        seed, number, recipe, encoder = job
        run = folder / recipe / str(number) / encoder / str(seed)
        run.parent.mkdir(parents=True, exist_ok=True)
        scores = run / "test" / "cases.csv"
        log = run.parent / f"{seed}.log"
        if not (run / "model.pt").is_file():
            folds = folder / f"folds_{seed}_{number}.json"
            per_epoch = max(_folds(items, number, seed, folds) // batch_size, 1)
            epochs = max(steps // per_epoch, 1)
            settings = {
                "dataset_dir": str(source / arms.CT),
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
        if (run / "model.pt").is_file() and not scores.is_file():
            settings = {
                "models": [str(run)],
                "datasets": [held_out, str(source / arms.MRI)],
                "output_dir": str(scores.parent),
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
    collect(out)


def collect(out: str) -> None:
    """Join the scores of the fine-tunings that have been tested in OUT/cases.csv."""
    tables = []
    for file in sorted(Path(out).glob("*/*/*/*/test/cases.csv")):
        recipe, labelled, encoder, seed = file.relative_to(out).parts[:4]
        table = pd.read_csv(file)[["target", "case", "label", "dice"]].rename(columns={"label": "class"}).round(4)
        where = {"recipe": recipe, "labelled": {"0": "all"}.get(labelled, labelled), "encoder": encoder, "seed": seed}
        tables.append(table.assign(**where)[[*where, *table.columns]])
    write_csv(pd.concat(tables), Path(out) / "cases.csv")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fire.Fire({"train": main, "collect": collect})
