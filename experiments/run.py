"""Fill in the cells of `experiments/matrix.yaml`: pre-train, fine-tune, test; skip what is done; stop in time.

    python experiments/run.py run --volumes DIR --work_dir DIR --minutes 60 [--table main] [--arms …] [--seeds 0]
    python experiments/run.py status

Every step is one `python -m monai.bundle run` of a bundle with overlays; its log starts with the exact command.
It runs in a forked process, which spares it MONAI's import. Per-case scores go to `experiments/results/<arm>/`,
one small CSV a cell: whoever has them can rebuild every table without training anything (`experiments/report.py`).
"""

from __future__ import annotations

import csv
import functools
import multiprocessing
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fire
import yaml
from filelock import FileLock, Timeout

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FOLDS = HERE / "splits" / "sarcoma.json"
SCORES = ("dice", "surface_distance", "hausdorff95", "sensitivity", "truth_volume", "predicted_volume")
TERMS = ("inpainting", "rotation", "contrastive", "density")  # of the pre-training loss, before their weights
COLUMNS = ("arm", "seed", "fold", "row", "view", "tested_on", "patient", "structure", *SCORES)


class OutOfTimeError(Exception):
    """The time budget is spent."""


@dataclass(frozen=True)
class Cell:
    """One arm with one fold and one seed."""

    arm: str
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """Name of its folder and files."""
        return f"seed{self.seed}_fold{self.fold}"

    @property
    def result(self) -> Path:
        """File of its per-case scores."""
        return RESULTS / self.arm / f"{self.name}.csv"


@functools.cache
def read_matrix() -> dict[str, Any]:
    """The content of `matrix.yaml`."""
    return yaml.safe_load((HERE / "matrix.yaml").read_text(encoding="utf-8"))


def _chosen(value: Any, default: Sequence) -> list:
    if value is None:
        return list(default)
    return value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]


def cells(arms: Any = None, seeds: Any = None, folds: Any = None, table: str | None = None) -> Iterator[Cell]:
    """Cells in the order in which they are wanted: by seed, then by arm, then by fold."""
    matrix = read_matrix()
    names = _chosen(arms, matrix["arms"])
    unknown = sorted(set(names) - set(matrix["arms"]))
    if unknown:
        raise ValueError(f"unknown arms {unknown}: see {HERE / 'matrix.yaml'}")
    for seed in map(int, _chosen(seeds, matrix["seeds"])):
        for name in names:
            arm = matrix["arms"][name]
            in_table = arm.get("table", "main")
            planned = arm.get("seeds", matrix["seeds"] if in_table == "main" else matrix["seeds"][:1])
            if seed not in planned or table not in (None, in_table):
                continue
            for fold in _chosen(folds, matrix["folds"]):
                if int(fold) in arm.get("folds", matrix["folds"]):
                    yield Cell(name, seed, int(fold))


def overlays(matrix: Mapping[str, Any], kind: str, names: Sequence[str] = ()) -> list[str]:
    """Configuration files of a step: those of its kind, then its own overlays."""
    return [str(HERE.parent / path) for path in [*matrix["base"][kind], *names]]


def held_out(fold: int) -> list[str]:
    """Patients of a fold, whom no training of that fold may see."""
    from swinfuse_components.data import load_fold

    return sorted(item["patient"] for item in load_fold(FOLDS, fold, "validation"))


def _bundle(run_id: str, files: Sequence[str], values: Mapping[str, Any], log: Path) -> None:
    """Body of the forked process: one run of a bundle, its output in a file."""
    import monai.bundle
    import torch

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    options = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    print(shlex.join(["python", "-m", "monai.bundle", "run", run_id, "--config_file", str(list(files)), *options]))
    sys.stdout.flush()
    monai.bundle.run(run_id=run_id, config_file=list(files), **values)


class Runner:
    """Runs the steps of a cell, each in a process of its own, until the time is up."""

    def __init__(self, volumes: str, work_dir: str, minutes: float) -> None:
        self.volumes, self.work = Path(volumes).resolve(), Path(work_dir).resolve()
        self.deadline = time.monotonic() + 60 * minutes
        self.matrix = read_matrix()
        self.process: Any = None

    def stop(self, *_: Any) -> None:
        """End the step that is running, as on a signal."""
        self.deadline = time.monotonic()
        if self.process is not None and self.process.is_alive():
            self.process.terminate()

    def step(self, cell: Cell, kind: str, files: Sequence[str], folder: Path, **values: Any) -> None:
        """Run a bundle, unless it is done; its time goes to `results/runs.csv`."""
        done = folder / "done"
        if done.is_file():
            return
        if time.monotonic() >= self.deadline:
            raise OutOfTimeError
        for left in folder.glob("*") if folder.is_dir() else ():  # of a step that was cut short
            if left.is_file():
                left.unlink()
        run_id = "evaluating" if kind == "evaluate" else "training"
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        self.process = multiprocessing.get_context("fork").Process(
            target=_bundle, args=(run_id, files, values, self.work / "logs" / f"{folder.relative_to(self.work)}.log")
        )
        self.process.start()
        self.process.join(max(self.deadline - time.monotonic(), 1))
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(10)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
            raise OutOfTimeError
        if self.process.exitcode != 0:
            if time.monotonic() >= self.deadline:
                raise OutOfTimeError
            raise RuntimeError(f"{kind} of {cell} failed, see the log of {folder}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        done.touch()
        times = RESULTS / "runs.csv"
        new = not times.is_file()
        times.parent.mkdir(parents=True, exist_ok=True)
        with times.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["arm", "seed", "fold", "step", "wall_seconds", "cpu_seconds"])
            wall = round(time.monotonic() - start, 1)
            writer.writerow([cell.arm, cell.seed, cell.fold, kind, wall, round(cpu, 1)])

    def pretrain(self, cell: Cell, name: str) -> Path:
        """Pre-train without the patients of the fold; shared by all arms and seeds that start from it.

        A fold has one pre-training, whose noise is in the spread between folds; seeds are of the fine-tuning.
        """
        cell = replace(cell, seed=0)
        folder = self.work / "pretraining" / name / f"fold{cell.fold}"
        self.step(
            cell,
            "pretrain",
            overlays(self.matrix, "pretrain", self.matrix["pretrainings"][name]),
            folder,
            dataset_dir=str(self.volumes / "SynthRAD_like"),
            exclude_patients=held_out(cell.fold),
            seed=cell.seed,
            run_dir=str(folder),
        )
        return folder / "model.pt"

    def run(self, cell: Cell) -> None:
        """All the steps of a cell, and its scores into `results/`."""
        settings = self.matrix["arms"][cell.arm]
        trained = settings.get("of", cell.arm)
        arm = self.matrix["arms"][trained]
        tested_on = settings.get("tested_on", ["ct", "mr"])
        folder = self.work / trained / cell.name
        models: list[str] = []
        if not arm.get("trivial"):
            options: dict[str, Any] = {"dim_options": arm["dim_options"]} if "dim_options" in arm else {}
            if "pretraining" in arm:
                checkpoint = self.pretrain(cell, arm["pretraining"])
                options |= {"start": "pretrained", "pretrained_checkpoint": str(checkpoint)}
            if "cases" in arm:
                some = f"$data.load_fold(@datalist, @fold or 0, 'training')[:{arm['cases']}]"
                options["train#dataset#data"] = some
            if "steps" in arm:
                options["steps"] = arm["steps"]
            self.step(
                cell,
                "finetune",
                overlays(self.matrix, "finetune", arm.get("overlays", ())),
                folder,
                **self._data(arm.get("trained_on", "ct")),
                fold=cell.fold,
                seed=cell.seed,
                dim=arm["network"],
                run_dir=str(folder),
                **options,
            )
            models = [str(folder)]
        union = settings.get("table") == "union"
        changes = ["experiments/configs/trivial_baselines.yaml"] if arm.get("trivial") else []
        changes += ["experiments/configs/union.yaml"] if union else []
        scores = folder / ("union" if union else "scores")
        self.step(
            cell,
            "evaluate",
            overlays(self.matrix, "evaluate", changes),
            scores,
            models=models,
            mean_mask_datasets=[self._data(key)["dataset_dir"] for key in settings.get("mean_masks", ())],
            datasets=[self._data(key) for key in tested_on],
            fold=cell.fold,
            views=settings.get("views", ["image"]),
            output_dir=str(scores),
        )
        self._collect(cell, scores / "cases.csv", {self._column(key): key for key in tested_on})

    def _data(self, key: str) -> dict[str, str]:
        """Folder of a task, and its folds where they are not drawn by the bundle: those of the sarcoma's patients."""
        task = self.matrix["tasks"][key]
        folds = {"fold_file": str(FOLDS)} if key in ("ct", "mr") else {}
        return {"dataset_dir": str(self.volumes / "MSD_like" / task), **folds}

    def _column(self, key: str) -> str:
        description = Path(self._data(key)["dataset_dir"]) / "dataset.json"
        return yaml.safe_load(description.read_text(encoding="utf-8"))["name"]

    @staticmethod
    def _collect(cell: Cell, cases: Path, names: Mapping[str, str]) -> None:
        with cases.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        cell.result.parent.mkdir(parents=True, exist_ok=True)
        partial = cell.result.with_suffix(".part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                what = [row["model"], row["view"], names[row["target"]], row["patient"], row["label"]]
                scores = [f"{float(row[score]):.6g}" for score in SCORES]
                writer.writerow([cell.arm, cell.seed, cell.fold, *what, *scores])
        os.replace(partial, cell.result)


def run(
    volumes: str,
    work_dir: str,
    minutes: float = 60,
    arms: Any = None,
    seeds: Any = None,
    folds: Any = None,
    table: str | None = None,
    results: str | None = None,
    niceness: int = 19,
) -> str:
    """Compute cells that have no results yet, until the time is up.

    Args:
        volumes: the folder that `experiments/volumes.py` has written.
        work_dir: for checkpoints and logs; a second call with the same folder goes on where this one stops.
        minutes: time budget. A step that is not over by then is ended, and begun anew by the next call.
        arms: some arms of `matrix.yaml`, all by default.
        seeds: some seeds, all by default.
        folds: some folds, all by default.
        table: `main`, `ablations`, `few_labels`, `longer` or `union`; all of them by default.
        results: folder of the scores, in place of `experiments/results`.
        niceness: added to the priority number of this process.
    """
    global RESULTS
    RESULTS = RESULTS if results is None else Path(results).resolve()
    os.nice(niceness)
    import monai.bundle  # noqa: F401  before the processes are forked

    import swinfuse_components.engines
    import swinfuse_components.evaluation
    import swinfuse_components.finetuning  # noqa: F401

    runner = Runner(volumes, work_dir, minutes)
    runner.work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(runner.work / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SystemExit(f"another run is at work in {runner.work}") from None
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    done = failed = 0
    try:
        for cell in cells(arms, seeds, folds, table):
            if cell.result.is_file():
                continue
            try:
                runner.run(cell)
                done += 1
                print(f"{time.strftime('%H:%M:%S')} {cell.arm} {cell.name}", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"{time.strftime('%H:%M:%S')} {error}", flush=True)
    except OutOfTimeError:
        return f"time is up: {done} cells done, {failed} failed"
    finally:
        lock.release()
    return f"nothing is left: {done} cells done, {failed} failed"


def status() -> str:
    """How many cells of each arm have results."""
    matrix = read_matrix()
    lines = []
    for arm in matrix["arms"]:
        planned = list(cells([arm]))
        done = sum(cell.result.is_file() for cell in planned)
        lines.append(f"{arm:28s} {done} of {len(planned)}")
    return "\n".join(lines)


if __name__ == "__main__":
    fire.Fire({"run": run, "status": status})
