"""The loss curves of a run as CSV and PNG, in which a resumed run goes on."""

import csv
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import ignite.distributed as idist
import pandas as pd
from ignite.engine import Engine, Events
from monai.utils import is_scalar
from torch.optim import Optimizer

from .files import atomic_write, keep_aside
from .logs import term_values


class LossCurves:
    """Keep every scalar of every iteration in ``losses.csv`` and draw them in ``losses.png`` when the run ends.

    The metrics of each validation by ``evaluator`` go to ``validation.csv`` and into the picture. A resumed run goes on
    in the same files, from which the rows after its checkpoint are dropped.

    ``lr`` is the learning rate of the step, by ``optimizer``; ``bounds`` gives, for a batch size, the value at which a
    term is saturated, drawn as a dashed line.
    """

    def __init__(
        self,
        run_dir: str | Path,
        optimizer: Optimizer,
        evaluator: Engine,
        bounds: Callable[[int], Mapping[str, float]] | None = None,
    ) -> None:
        self.table, self.validation_table = (Path(run_dir) / f"{name}.csv" for name in ("losses", "validation"))
        self.optimizer, self.evaluator, self.bounds = optimizer, evaluator, bounds
        self._files: dict[Path, TextIO] = {}
        self._columns: dict[Path, list[str]] = {}
        self._rate = math.nan
        self._bounds: Mapping[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if idist.get_rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember_rate)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self._finish)
        self.evaluator.add_event_handler(Events.COMPLETED, self._validated, engine)

    def _start(self, engine: Engine) -> None:
        for path in (self.table, self.validation_table):
            _drop_rows_after(path, engine.state.iteration)

    def _remember_rate(self, engine: Engine) -> None:
        # before the step: a scheduler may already have moved on when the iteration is complete
        self._rate = self.optimizer.param_groups[0]["lr"]

    def _iteration(self, engine: Engine) -> None:
        self._append(self.table, engine, {**term_values(engine.state.output), "lr": self._rate})
        if self.bounds is not None:
            self._bounds = self.bounds(engine.state.output["image"].shape[0])

    def _validated(self, evaluator: Engine, trainer: Engine) -> None:
        numbers = {name: value for name, value in evaluator.state.metrics.items() if is_scalar(value)}
        self._append(self.validation_table, trainer, numbers)

    def _epoch(self, engine: Engine) -> None:
        if engine.state.epoch % 10 == 0:
            self.draw()

    def _finish(self, engine: Engine) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
        self.draw()

    def _append(self, path: Path, trainer: Engine, numbers: Mapping[str, Any]) -> None:
        row = {"iteration": trainer.state.iteration, "epoch": trainer.state.epoch, **numbers}
        if path not in self._files:
            path.parent.mkdir(parents=True, exist_ok=True)
            header = _lines(path)[:1]
            # a table that an earlier version began keeps its columns
            self._columns[path] = header[0].split(",") if header else list(row)
            self._files[path] = open(path, "a", newline="", buffering=1, encoding="utf-8")
            if not header:
                csv.writer(self._files[path]).writerow(row)
        values = [_text(float(row.get(column, math.nan))) for column in self._columns[path]]
        try:
            csv.writer(self._files[path]).writerow(values)
        except OSError as error:  # which does not say of what file
            raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error

    def draw(self) -> None:
        """Draw ``losses.png`` from the tables."""
        draw_curves(self.table, self.validation_table, self.table.with_name("losses.png"), self._bounds)


def draw_curves(
    training: str | Path, validation: str | Path, path: str | Path, bounds: Mapping[str, float] | None = None
) -> None:
    """Draw one panel for each scalar: every iteration faint, a running mean over it, validation as points.

    A metric that only the validation has, such as ``val_mean_dice``, gets a panel of its own; a table that is not there
    is left out. ``bounds`` of the terms are drawn as dashed lines. ``path`` is a PNG.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:  # an optional package: the tables stand without the picture
        return

    steps, held_out = read_table(training), read_table(validation)
    names = [*steps, *(name for name in held_out if name.removeprefix("val_") not in steps)]
    left_out = ("iteration", "epoch", "_weighted", "_of_bound")
    names = [name for name in names if not name.endswith(left_out)]
    if not names:
        return
    width = min(3, len(names))
    height = math.ceil(len(names) / width)
    figure = Figure(figsize=(4.2 * width, 2.8 * height), layout="tight")
    axes = figure.subplots(height, width, squeeze=False).flat
    for name, axis in zip(names, axes, strict=False):
        if name in steps:
            mean = steps[name].rolling(max(1, len(steps) // 20), min_periods=1).mean()
            axis.plot(steps["iteration"], steps[name], color="tab:blue", alpha=0.25, linewidth=0.8)
            axis.plot(steps["iteration"], mean, color="tab:blue", label="training")
        metric = name if name not in steps else f"val_{name}"
        if metric in held_out:
            points = held_out["iteration"], held_out[metric]
            axis.plot(*points, "o-", color="tab:orange", markersize=3, label="validation")
        if bounds and name in bounds:
            axis.axhline(bounds[name], color="grey", linestyle="--", linewidth=0.8, label="bound")
        axis.set(title=name, xlabel="iteration")
        axis.legend(fontsize="x-small", frameon=False)
    for axis in axes:  # what is left of the grid
        axis.axis("off")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _drop_rows_after(path: Path, iteration: int) -> None:
    """Cut a table back to ``iteration``, whole or not at all.

    That of an earlier run, or one with a damaged row that is not to be dropped, is kept aside.
    """
    header, *rows = _lines(path) or [""]
    numbers = [int(number) if (number := row.partition(",")[0]).isdecimal() else 0 for row in rows]
    is_table = header.startswith("iteration,")
    sound = [is_table and 0 < number and row.count(",") == header.count(",") for row, number in zip(rows, numbers)]
    if rows and not path.read_bytes().endswith(b"\n"):  # cut short
        sound[-1] = False
    kept = [row for row, number, is_sound in zip(rows, numbers, sound) if is_sound and number <= iteration]
    if rows and (not iteration or len(kept) < sum(number <= iteration for number in numbers)):
        aside = keep_aside(path)
        logging.getLogger(__name__).warning(f"{path} is of an earlier run or has damaged rows: kept as {aside}")
    if not kept:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write("\r\n".join([header, *kept, ""]))


def read_table(path: str | Path) -> pd.DataFrame:
    """Numbers of a run's table; empty if there is none. Lines that are damaged or cut short are left out."""
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return pd.DataFrame()
    table = pd.read_csv(path, on_bad_lines="skip", encoding_errors="replace")
    return table.apply(pd.to_numeric, errors="coerce").dropna(how="all")


def _text(value: float) -> str:
    """Shortest text that reads back as the very same number; counts without a decimal point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
