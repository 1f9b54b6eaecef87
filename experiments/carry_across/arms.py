"""The trainings of docs/carry_across.md on one GPU (or CPU), several at a time, each by the bundle's own command.

    python experiments/carry_across/arms.py DATA OUT --steps 2000
    python experiments/carry_across/arms.py DATA OUT --steps 2000 --only "['random_contrast','plain']"

DATA holds the tasks as the Decathlon lays them out. Each arm trains, then is tested three ways on the MRI and on the CT
that it was not trained on (an evaluation leaves out the patients of a network's training). OUT/<arm> keeps its run,
OUT/<arm>/<way>/cases.csv the scores. An arm that has been tested is not run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fire

ROOT = Path(__file__).resolve().parents[2]
MSD = "bundles/finetune_msd/configs/"
PRETRAIN = [f"bundles/pretrain/configs/{name}" for name in ("train.json", "pretext_tasks.yaml")]
CONTRAST = [MSD + "train.json", MSD + "random_contrast.yaml"]
PLAIN = [MSD + "train.json", "experiments/carry_across/plain.yaml"]
CT, MRI = "Task63_AbdomenCT", "Task64_AbdomenMR"
ABDOMEN = {"train": CT, "test": [CT, MRI], "spacing": [3, 3, 3], "per_epoch": 5}
SARCOMA = {
    "train": "Task51_SarcomaCT",
    "test": ["Task51_SarcomaCT", "Task52_SarcomaMR", "Task53_SarcomaPET"],
    "spacing": [4, 4, 4],
    "per_epoch": 8,
}
ARMS: dict[str, dict] = {
    "random_contrast": {"files": CONTRAST, "settings": {"num_workers": 3}, **ABDOMEN},
    "plain": {"files": PLAIN, **ABDOMEN},
    "gin": {"files": CONTRAST, "settings": {"contrast_weights": [0, 0, 1, 0, 0]}, **ABDOMEN},
    "regions": {"files": CONTRAST, "settings": {"contrast_weights": [0.4, 0.6, 0, 0, 0]}, **ABDOMEN},
    "swinfuse": {"files": CONTRAST, "settings": {"dim": "swinfuse"}, **ABDOMEN},
    "swinfuse_pretrained": {"files": CONTRAST, "settings": {"dim": "swinfuse", "start": "pretrained"}, **ABDOMEN},
    "sarcoma_random_contrast": {"files": CONTRAST, "steps": 0.5, **SARCOMA},
    "sarcoma_plain": {"files": PLAIN, "steps": 0.5, **SARCOMA},
}
# The ceiling: MRI with its own labels, five folds, the overlay's positions and acquisitions without its contrasts.
for number in range(5):
    ARMS[f"ceiling{number}"] = {
        "files": CONTRAST,
        "settings": {"contrast_prob": 0.0, "average_momentum": 0.01},
        "fold": number,
        "train": MRI,
        "test": [MRI],
        "spacing": [3, 3, 3],
        "per_epoch": 2,
        "steps": 0.25,
    }
WAYS = {
    "nothing": {"match_histogram": False, "largest_component": []},
    "matched": {"match_histogram": True, "largest_component": []},
    "matched_largest": {"match_histogram": True},
}


def _bundle(bundle: str, run: str, files: Sequence[str], settings: dict, log: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", run, "--bundle_root", f"bundles/{bundle}"]
    command += ["--meta_file", f"bundles/{bundle}/configs/metadata.json"]
    command += ["--logging_file", f"bundles/{bundle}/configs/logging.conf", "--config_file", repr(list(files))]
    for key, value in settings.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    with log.open("a") as stream:
        subprocess.run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=True)


def _pretrain(data: Path, out: Path, network: dict, steps: int) -> None:
    sources = [{"path": str(data / "Task51_SarcomaCT")}, {"path": str(data / "Task52_SarcomaMR")}]
    settings = {
        "datasets": sources,
        "run_dir": str(out / "pretraining"),
        "spacing": [4, 4, 4],
        "ct_window": [-125, 275],
        "batch_size": 2,
        "num_workers": 2,
        "epoch_length": min(steps, 100),
        "max_epochs": max(steps // 100, 1),
        "val_interval": max(steps // 100, 1),
        "warmup_iterations": 100,
        **network,
    }
    _bundle("pretrain", "training", PRETRAIN, settings, out / "pretraining.log")


def _arm(name: str, data: Path, out: Path, network: dict, steps: int, pretraining_steps: int, limit: int) -> None:
    arm, folder = ARMS[name], out / name
    settings = {"dim": "none", **network, **arm.get("settings", {})}
    per_epoch = arm["per_epoch"]
    epochs = max(round(steps * arm.get("steps", 1) / per_epoch), 1)
    if settings.get("start") == "pretrained":
        settings["pretrained_checkpoint"] = str(out / "pretraining/model.pt")
        if not Path(settings["pretrained_checkpoint"]).is_file():
            _pretrain(data, out, {**network, "dim": settings["dim"]}, pretraining_steps)
    if not (folder / "model.pt").is_file():
        fixed = {
            "dataset_dir": str(data / arm["train"]),
            "run_dir": str(folder),
            "fold": arm.get("fold", 0),
            "spacing": arm["spacing"],
            "use_checkpoint": False,
            "batch_size": 4,
            "learning_rate": 0.0015,
            "max_epochs": epochs,
            "val_interval": epochs,
            "warmup_epochs": 5,
            "overlap": 0.25,
            "cache_num": 40,
            "amp": False,
            "num_workers": 2,
        }
        _bundle("finetune_msd", "training", arm["files"], fixed | settings, out / f"{name}.log")
    tests = []
    for way, rules in WAYS.items():
        target = folder / way
        if (target / "cases.csv").is_file():
            continue
        wanted = {
            "models": [str(folder)],
            "datasets": [str(data / task) for task in arm["test"]],
            "output_dir": str(target),
            "overlap": 0.25,
            "sw_batch_size": 4,
            "keep_predictions": False,
            "baselines": [],
            "class_mapping": "same",
            **rules,
            **({"limit": limit} if limit else {}),
        }
        log = out / f"{name}_{way}.log"
        tests.append(("ood_eval", "evaluating", ["bundles/ood_eval/configs/evaluate.json"], wanted, log))
    with ThreadPoolExecutor(len(WAYS)) as pool:
        for test in [pool.submit(_bundle, *arguments) for arguments in tests]:
            test.result()


def main(
    data: str,
    out: str,
    steps: int = 3000,
    pretraining_steps: int = 1000,
    only: Sequence[str] = (),
    feature_size: int = 24,
    roi_size: int = 64,
    limit: int = 0,
    in_turn: Sequence[str] = (),
) -> None:
    """Train and test the arms, all at the same time.

    Args:
        data: folder of the tasks.
        out: folder of the runs.
        steps: iterations of an arm; the ceiling's folds and the sarcoma take a part of it.
        pretraining_steps: iterations of the pre-training.
        only: names of the arms, all if empty.
        feature_size: of the networks.
        roi_size: edge of the region, in voxels.
        limit: test on so many cases only, for a trial.
        in_turn: beginnings of names of arms that wait for each other.
    """
    network = {"feature_size": feature_size, "roi_size": [roi_size] * 3, "window_size": 4}
    folder, began = Path(out).resolve(), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    chains: dict[str, list[str]] = {}
    for name in only or ARMS:
        chains.setdefault(next((start for start in in_turn if name.startswith(start)), name), []).append(name)

    def work(names: list[str]) -> None:
        for name in names:
            try:
                _arm(name, Path(data).resolve(), folder, network, steps, pretraining_steps, limit)
                print(f"{time.time() - began:5.0f} s  {name} is done", flush=True)
            except subprocess.CalledProcessError:
                print(f"{time.time() - began:5.0f} s  {name} FAILED, see {folder / name}*.log", flush=True)

    with ThreadPoolExecutor(len(chains)) as pool:
        list(pool.map(work, chains.values()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    fire.Fire(main)
