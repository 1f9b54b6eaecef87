"""Loss curves of a run as a table and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from .distributed import rank
from .files import atomic_write
from .pretraining import term_values


class LossCurves:
    """Keep every scalar of every iteration in ``losses.csv`` and draw them in ``losses.png`` when the run ends.

    With an evaluator, the metrics of each validation go to ``validation.csv`` and into the picture. A resumed run
    goes on in the same files, from which the rows after its checkpoint are dropped.

    Args:
        run_dir: folder for the files.
        optimizer: adds the learning rate of the step, as ``lr``.
        evaluator: whose metrics belong to the picture.
        bounds: gives the value at which a term is saturated, drawn as a dashed line; called with the batch size.
        output_transform: gives the named scalars of the trainer's output.
        draw_every: also draw the picture every so many epochs; 0 for only at the end.
    """

    def __init__(
        self,
        run_dir: str | Path,
        optimizer: Optimizer | None = None,
        evaluator: Engine | None = None,
        bounds: Callable[[int], Mapping[str, float]] | None = None,
        output_transform: Callable[[Any], Mapping[str, float]] = term_values,
        draw_every: int = 10,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.bounds = bounds
        self.output_transform = output_transform
        self.draw_every = draw_every
        self._files: dict[str, TextIO] = {}
        self._columns: dict[str, list[str]] = {}
        self._rate = float("nan")
        self._bounds: dict[str, float] = {}

    @property
    def table(self) -> Path:
        """The CSV file of the training."""
        return self.run_dir / "losses.csv"

    @property
    def validation_table(self) -> Path:
        """The CSV file of the validation."""
        return self.run_dir / "validation.csv"

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._remember_rate)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        for event in (Events.COMPLETED, Events.TERMINATE):
            engine.add_event_handler(event, self._finish)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._validated, engine)

    def _start(self, engine: Engine) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for path in (self.table, self.validation_table):
            _drop_rows_after(path, engine.state.iteration)

    def _remember_rate(self, engine: Engine) -> None:
        # before the step: a scheduler may already have moved on when the iteration is complete
        if self.optimizer is not None:
            self._rate = self.optimizer.param_groups[0]["lr"]

    def _iteration(self, engine: Engine) -> None:
        values = dict(self.output_transform(engine.state.output))
        rate = {} if self.optimizer is None else {"lr": self._rate}
        self._append(self.table, {"iteration": engine.state.iteration, "epoch": engine.state.epoch, **values, **rate})
        if self.bounds is not None and not self._bounds:
            output = engine.state.output
            batch_size = output["image"].shape[0] if isinstance(output, Mapping) else len(output)
            self._bounds = dict(self.bounds(batch_size))

    def _validated(self, evaluator: Engine, trainer: Engine) -> None:
        metrics = {name: float(value) for name, value in evaluator.state.metrics.items() if _is_number(value)}
        state = trainer.state
        self._append(self.validation_table, {"iteration": state.iteration, "epoch": state.epoch, **metrics})

    def _epoch(self, engine: Engine) -> None:
        for file in self._files.values():
            file.flush()
        if self.draw_every and engine.state.epoch % self.draw_every == 0:
            self.draw()

    def _finish(self, engine: Engine) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
        self.draw()

    def _append(self, path: Path, row: Mapping[str, float]) -> None:
        if path.name not in self._files:
            columns = path.read_text(encoding="utf-8").splitlines()[:1] if path.exists() else []
            # a table that an earlier version began keeps its columns
            self._columns[path.name] = next(csv.reader(columns)) if columns else list(row)
            self._files[path.name] = open(path, "a", newline="", buffering=1, encoding="utf-8")
            if not columns:
                csv.writer(self._files[path.name]).writerow(row)
        values = [_text(row.get(column, math.nan)) for column in self._columns[path.name]]
        try:
            csv.writer(self._files[path.name]).writerow(values)
        except OSError as error:  # which does not say of what file
            raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error

    def draw(self) -> Path:
        """Draw ``losses.png`` from the tables; its path."""
        for file in self._files.values():
            file.flush()
        path = self.run_dir / "losses.png"
        draw_curves(read_table(self.table), read_table(self.validation_table), path, self._bounds)
        return path


def _drop_rows_after(path: Path, iteration: int) -> None:
    """Cut a table back to ``iteration``, whole or not at all: a run may be killed here too."""
    rows = read_table(path)
    kept = [row for row in rows if row["iteration"] <= iteration]
    if not kept:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list(kept[0]), *([_text(value) for value in row.values()] for row in kept)])
    with atomic_write(path) as file:
        file.write(text.getvalue())


def read_table(path: str | Path) -> list[dict[str, float]]:
    """Rows of a table of numbers; empty if there is no file. A last line cut short by a crash is left out."""
    path = Path(path)
    if not path.is_file():
        return []
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                rows.append({key: float(value) for key, value in row.items()})
            except (TypeError, ValueError):
                continue
    return rows


def draw_curves(
    training: list[dict[str, float]],
    validation: list[dict[str, float]],
    path: str | Path,
    bounds: Mapping[str, float] | None = None,
) -> None:
    """Draw one panel for each scalar: every iteration faint, a running mean over it, validation as points.

    A metric that only the validation has, such as ``val_mean_dice``, gets a panel of its own.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:  # an optional package: the tables stand without the picture
        return

    names = [name for name in (training[0] if training else {}) if name not in ("iteration", "epoch")]
    of_validation = validation[-1] if validation else {}
    names += [name for name in of_validation if name.removeprefix("val_") not in ("iteration", "epoch", *names)]
    names = [name for name in names if not name.endswith(("_weighted", "_of_bound"))]
    if not names:
        return
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), layout="tight")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    steps = [row["iteration"] for row in training]
    for axis, name in zip(axes.flat, names, strict=False):
        if name not in of_validation:
            values = [row.get(name, float("nan")) for row in training]
            axis.plot(steps, values, color="tab:blue", alpha=0.25, linewidth=0.8)
            axis.plot(steps, _running_mean(values, max(1, len(values) // 20)), color="tab:blue", label="training")
        metric = name if name in of_validation else f"val_{name}"
        held_out = [(row["iteration"], row[metric]) for row in validation if metric in row]
        if held_out:
            axis.plot(*zip(*held_out, strict=True), "o-", color="tab:orange", markersize=3, label="validation")
        if bounds and name in bounds:
            axis.axhline(bounds[name], color="grey", linestyle="--", linewidth=0.8, label="bound")
        axis.set(title=name, xlabel="iteration")
        axis.legend(fontsize="x-small", frameon=False)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def _running_mean(values: list[float], width: int) -> list[float]:
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (hasattr(value, "numel") and value.numel() == 1)


def _text(value: float) -> str:
    """Shortest text that reads back as the very same number; counts without a decimal point."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
