"""The pictures of `docs/results.md`, from the per-case scores; `report.py write` draws them with its tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from run import HERE, read_matrix
from scores import (
    TESTS,
    difference,
    few_label_scores,
    one_seed,
    patient_means,
    pretrainings,
    read_scores,
    rows_of,
    title,
)

from swinfuse_components.evaluation.statistics import summarize

IMAGES = HERE.parent / "docs" / "images"

#: Pre-trainings in which the density term differs, by its weight, bandwidth, views or gate.
DENSITIES = (
    "swinfuse",
    "paper",
    "swinfuse_contrasts",
    "density_zero",
    "density_minus",
    "density_paper_bandwidth",
    "pairs",
    "gate_product",
)

#: mean, lower and upper bound
Interval = tuple[float, float, float]


def _columns(size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(size, layout="constrained")
    return figure, figure.subplots(1, len(TESTS), sharey=True)


def forest(rows: Mapping[str, Sequence[Interval | None]], xlabel: str, *, grey: Collection[str] = ()) -> Figure:
    """A row of intervals in each test's column.

    Args:
        rows: an interval for each of `TESTS`, or None, by title, from top to bottom.
        xlabel: below all columns.
        grey: titles of rows that only serve as a measure.
    """
    size = (4 + 2.8 * len(TESTS), 0.9 + 0.34 * max(len(rows), 1))
    figure, axes = _columns(size)
    for column, (axis, ((_, modality), tested_on)) in enumerate(zip(axes, TESTS.items())):
        for height, (name, intervals) in enumerate(reversed(rows.items())):
            if (interval := intervals[column]) is None:
                continue
            mean, low, high = interval
            colour = "0.55" if name in grey else {"ct": "C0", "mr": "C1"}[modality]
            axis.plot([low, high], [height, height], color=colour, lw=2)
            axis.plot(mean, height, "o", color=colour)
        axis.set_title(tested_on, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    axes[0].set_yticks(range(len(rows)), list(reversed(rows)), fontsize=8)
    figure.supxlabel(xlabel, fontsize=9)
    return figure


def results() -> Figure:
    """Mean Dice of every row of table 1, of each structure in CT and in MRI."""
    scores = read_scores()
    plain = rows_of(scores, without_network=True)
    rows: dict[str, list[Interval | None]] = {}
    for row in rows_of(scores, without_network=False) + plain:
        summaries = [summarize(list(patient_means(scores.get((row, *test), {})).values())) for test in TESTS]
        rows[title(row)] = [(s.mean, s.low, s.high) if s.cases else None for s in summaries]
    figure = forest(rows, "Dice, mean over patients, 95 % interval", grey={title(row) for row in plain})
    for axis in figure.axes:
        axis.set_xlim(0, 1)
    return figure


def ablations() -> Figure:
    """What each change of table 2 makes of the Dice, with its interval over folds."""
    matrix, scores = read_matrix(), read_scores()
    rows: dict[str, list[Interval | None]] = {}
    for arm, settings in matrix["arms"].items():
        if settings.get("table") != "ablations":
            continue
        rows[settings["title"]] = []
        for test in TESTS:
            own, first = (one_seed(scores.get((row, *test), {})) for row in (arm, matrix["ablations_of"]))
            interval = difference(own, first)
            rows[settings["title"]].append(None if np.isnan(interval[1]) else interval)
    figure = forest(rows, "difference of Dice from SwinFUSE, pre-trained; 95 % interval over folds")
    bound = max((abs(value) for intervals in rows.values() for i in intervals if i for value in i[1:]), default=1.0)
    for axis in figure.axes:
        axis.axvline(0, color="0.5", lw=1)
        axis.set_xlim(-1.05 * bound, 1.05 * bound)
    return figure


def few_labels() -> Figure:
    """Dice by the number of training cases, with and without pre-training, intervals over patients."""
    counts, models = few_label_scores()
    figure, axes = _columns((2.6 * len(TESTS), 3))
    for axis, (test, tested_on) in zip(axes, TESTS.items()):
        for shift, (name, tests) in enumerate(models.items()):
            summaries = [summarize(list(patient_means(scores).values())) for scores in tests[test]]
            means = np.array([s.mean for s in summaries])
            errors = [means - [s.low for s in summaries], [s.high for s in summaries] - means]
            places = np.arange(len(counts)) + 0.12 * shift
            axis.errorbar(places, means, yerr=errors, marker="o", capsize=3, label=name if axis is axes[0] else None)
        axis.set_title(tested_on, fontsize=10)
        axis.set_xticks(range(len(counts)), ["all" if count is None else str(count) for count in counts])
        axis.set_ylim(0, 1)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("Dice")
    figure.supxlabel("training cases", fontsize=9)
    figure.legend(loc="outside upper center", ncols=len(models), fontsize=8)
    return figure


def density() -> Figure:
    """The density divergence over pre-training, mean and range over folds."""
    figure = Figure((8, 5), layout="constrained")
    axis = figure.subplots()
    for name, records in pretrainings().items():
        if records[0]["pretraining"] not in DENSITIES:
            continue
        steps: dict[int, list[float]] = defaultdict(list)
        for record in records:
            steps[int(record["step"])].append(float(record["density"]))
        (line,) = axis.plot(list(steps), [np.mean(values) for values in steps.values()], label=name)
        limits = zip(*((min(values), max(values)) for values in steps.values()))
        axis.fill_between(list(steps), *limits, color=line.get_color(), alpha=0.2, lw=0)
    axis.axhline(np.log(2), color="0.5", ls="--", lw=1)
    axis.set_yscale("log")
    axis.set_xlabel("step of pre-training")
    axis.set_ylabel("density divergence, nats (dashed: ln 2)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "results": results,
    "ablations": ablations,
    "few_labels": few_labels,
    "density": density,
}


def draw_all(folder: Path = IMAGES) -> list[Path]:
    """Write every figure as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in FIGURES.items():
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=110)
        written.append(folder / f"{name}.png")
    return written
