"""Fill in the cells of `experiments/matrix.yaml`: pre-train, fine-tune, test; skip what is done; stop in time.

    python experiments/run.py run --volumes DIR --work_dir DIR --minutes 60 [--table main] [--arms …] [--seeds 0]
    python experiments/run.py status

Every step is one `python -m monai.bundle run` of a bundle with overlays, in a forked process (which spares it MONAI's
import); its log starts with the exact command. Per-case scores go to `experiments/results.csv`, the time of each step
to `experiments/times.csv`: whoever has them can rebuild every table without training (`experiments/report.py`).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fire
import pandas as pd
import yaml
from filelock import FileLock

from swinfuse_components.data import read_msd_task

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
FOLDS = HERE / "splits" / "sarcoma.json"
KEYS = ["arm", "seed", "fold"]
COLUMNS = [*KEYS, "row", "view", "tested_on", "patient", "structure", "dice", "surface_distance", "hausdorff95"]
TERMS = ("inpainting", "rotation", "contrastive", "density")  # of the pre-training loss, before their weights


class OutOfTimeError(Exception):
    """The time budget is spent."""


class Cell(NamedTuple):
    """One arm with one seed and one fold."""

    arm: str
    seed: int
    fold: int


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
    if unknown := sorted(set(names) - set(matrix["arms"])):
        raise ValueError(f"unknown arms {unknown}: see {HERE / 'matrix.yaml'}")
    for seed in map(int, _chosen(seeds, matrix["seeds"])):
        for name in names:
            arm = matrix["arms"][name]
            in_table = arm.get("table", "main")
            planned = arm.get("seeds", matrix["seeds"] if in_table == "main" else matrix["seeds"][:1])
            if seed in planned and table in (None, in_table):
                wanted = arm.get("folds", matrix["folds"])
                yield from (Cell(name, seed, int(f)) for f in _chosen(folds, matrix["folds"]) if int(f) in wanted)


def finished(results: Path) -> set[Cell]:
    """Cells that have scores."""
    if not results.is_file():
        return set()
    rows = pd.read_csv(results, usecols=KEYS)[KEYS].drop_duplicates()
    return {Cell(str(row.arm), int(row.seed), int(row.fold)) for row in rows.itertuples()}


def overlays(kind: str, names: Sequence[str] = ()) -> list[str]:
    """Configuration files of a step: those of its kind, then its own overlays."""
    return [str(HERE.parent / path) for path in [*read_matrix()["base"][kind], *names]]


def held_out(fold: int) -> list[str]:
    """Patients of a fold, whom no training of that fold may see."""
    from swinfuse_components.data import load_fold, load_folds

    return sorted(item["patient"] for item in load_fold(load_folds(FOLDS), fold, "validation"))


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


def _append(rows: pd.DataFrame, path: Path) -> None:
    rows.to_csv(path, mode="a", header=not path.is_file(), index=False, lineterminator="\n", float_format="%.6g")


class Runner:
    """Runs the steps of a cell, each in a process of its own, until the time is up."""

    def __init__(self, volumes: str, work_dir: str, minutes: float, results: Path = RESULTS) -> None:
        self.volumes, self.work, self.results = Path(volumes).resolve(), Path(work_dir).resolve(), results
        self.deadline = time.monotonic() + 60 * minutes
        self.process: Any = None

    def stop(self, *_: Any) -> None:
        """End the step that is running, as on a signal."""
        self.deadline = time.monotonic()
        if self.process is not None and self.process.is_alive():
            self.process.terminate()

    def step(self, cell: Cell, kind: str, files: Sequence[str], folder: Path, **values: Any) -> None:
        """Run a bundle unless it is done, in a folder that an unfinished step leaves to the next."""
        if (folder / "done").is_file():
            return
        if time.monotonic() >= self.deadline:
            raise OutOfTimeError
        for left in folder.glob("*") if folder.is_dir() else ():
            if left.is_file():
                left.unlink()
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        log = self.work / "logs" / f"{folder.relative_to(self.work)}.log"
        run_id = "evaluating" if kind == "evaluate" else "training"
        self.process = multiprocessing.get_context("fork").Process(target=_bundle, args=(run_id, files, values, log))
        self.process.start()
        self.process.join(max(self.deadline - time.monotonic(), 1))
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(10)
            self.process.kill()
            self.process.join()
        if self.process.exitcode != 0:
            if time.monotonic() >= self.deadline:
                raise OutOfTimeError
            raise RuntimeError(f"{kind} of {cell} failed, see {log}")
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (folder / "done").touch()
        took = {"step": kind, "wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
        _append(pd.DataFrame([{**cell._asdict(), **took}]), self.results.with_name("times.csv"))

    def pretrain(self, cell: Cell, name: str) -> Path:
        """Pre-train without the patients of the fold; a fold has one pre-training of a kind, which its seeds share."""
        folder = self.work / "pretraining" / name / f"fold{cell.fold}"
        self.step(
            cell._replace(seed=0),
            "pretrain",
            overlays("pretrain", read_matrix()["pretrainings"][name]),
            folder,
            dataset_dir=str(self.volumes / "SynthRAD_like"),
            exclude_patients=held_out(cell.fold),
            seed=0,
            run_dir=str(folder),
        )
        return folder / "model.pt"

    def finetune(self, cell: Cell, folder: Path) -> None:
        """Fine-tune the network of a cell's arm."""
        arm = read_matrix()["arms"][cell.arm]
        options: dict[str, Any] = {key: arm[key] for key in ("dim_options", "steps") if key in arm}
        if "pretraining" in arm:
            checkpoint = self.pretrain(cell, arm["pretraining"])
            options |= {"start": "pretrained", "pretrained_checkpoint": str(checkpoint)}
        if "cases" in arm:
            some = f"$data.load_fold(@datalist, @fold or 0, 'training')[:{arm['cases']}]"
            options["train#dataset#data"] = some
        files = overlays("finetune", arm.get("overlays", ()))
        options |= {"fold": cell.fold, "seed": cell.seed, "dim": arm["network"], "run_dir": str(folder)}
        self.step(cell, "finetune", files, folder, **self._data(arm.get("trained_on", "ct")), **options)

    def run(self, cell: Cell) -> None:
        """All the steps of a cell, and its scores into the results."""
        settings = read_matrix()["arms"][cell.arm]
        trained = cell._replace(arm=settings.get("of", cell.arm))
        tested_on = settings.get("tested_on", ["ct", "mr"])
        folder = self.work / trained.arm / f"seed{cell.seed}_fold{cell.fold}"
        trivial, union = settings.get("trivial"), settings.get("table") == "union"
        if not trivial:
            self.finetune(trained, folder)
        changes = ["experiments/configs/trivial_baselines.yaml"] if trivial else []
        changes += ["experiments/configs/union.yaml"] if union else []
        scores = folder / ("union" if union else "scores")
        self.step(
            cell,
            "evaluate",
            overlays("evaluate", changes),
            scores,
            models=[] if trivial else [str(folder)],
            mean_mask_datasets=[self._data(key)["dataset_dir"] for key in settings.get("mean_masks", ())],
            datasets=[self._data(key) for key in tested_on],
            fold=cell.fold,
            views=settings.get("views", ["image"]),
            output_dir=str(scores),
        )
        self.collect(cell, scores / "cases.csv", {self._column(key): key for key in tested_on})

    def collect(self, cell: Cell, cases: Path, names: Mapping[str, str]) -> None:
        """Append the per-case scores of a cell."""
        table = pd.read_csv(cases).rename(columns={"model": "row", "label": "structure"})
        table = table.assign(tested_on=table["target"].map(names), **cell._asdict())
        _append(table[COLUMNS], self.results)

    def _data(self, key: str) -> dict[str, str]:
        """Folder of a task, and for the sarcoma's patients their folds; other tasks have those the bundles draw."""
        folds = {"fold_file": str(FOLDS)} if key in ("ct", "mr") else {}
        return {"dataset_dir": str(self.volumes / "MSD_like" / read_matrix()["tasks"][key]), **folds}

    def _column(self, key: str) -> str:
        return read_msd_task(self._data(key)["dataset_dir"]).name


def run(
    volumes: str,
    work_dir: str,
    minutes: float = 60,
    arms: Any = None,
    seeds: Any = None,
    folds: Any = None,
    table: str | None = None,
    results: str = str(RESULTS),
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
        results: file of the scores.
        niceness: added to the priority number of this process.
    """
    os.nice(niceness)
    import monai.bundle  # noqa: F401  before the processes are forked

    import swinfuse_components.engines
    import swinfuse_components.evaluation
    import swinfuse_components.finetuning  # noqa: F401

    runner = Runner(volumes, work_dir, minutes, Path(results).resolve())
    runner.work.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    done = failed = 0
    with FileLock(runner.work / ".lock", timeout=0):  # a second run of this folder ends with filelock's Timeout
        for cell in cells(arms, seeds, folds, table):
            if cell in finished(runner.results):
                continue
            try:
                runner.run(cell)
                done += 1
                print(f"{time.strftime('%H:%M:%S')} {cell}", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"{time.strftime('%H:%M:%S')} {error}", flush=True)
            except OutOfTimeError:
                return f"time is up: {done} cells done, {failed} failed"
    return f"nothing is left: {done} cells done, {failed} failed"


def status() -> str:
    """How many cells of each arm have results."""
    done = finished(RESULTS)
    lines = []
    for arm in read_matrix()["arms"]:
        planned = set(cells([arm]))
        lines.append(f"{arm:28s} {len(planned & done)} of {len(planned)}")
    return "\n".join(lines)


if __name__ == "__main__":
    fire.Fire({"run": run, "status": status})
