"""Many evaluations collected into one table in the form of the paper's Table 1."""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .reference import paper_column

__all__ = ["MixedSplitsError", "Row", "collect_rows", "read_evaluations", "to_csv", "to_markdown"]


class MixedSplitsError(ValueError):
    """Runs to be compared were not trained and scored on the same patients."""


@dataclass(frozen=True)
class Row:
    """Dice of one model on one task.

    Attributes:
        task, model: what was measured.
        folds: numbers of the folds, in order.
        mean: mean Dice over the folds, in percent.
        deviation: sample standard deviation over the folds, in percent; ``None`` for one fold.
        cases: number of cases scored over all folds.
        source: ``"measured"`` or ``"paper"``.
    """

    task: str
    model: str
    folds: tuple[int, ...]
    mean: float
    deviation: float | None
    cases: int
    source: str


def read_evaluations(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Read ``evaluation.json`` files; a folder stands for all of them below it.

    Raises:
        FileNotFoundError: if a path holds none.
        ValueError: if a file is not the record of an evaluation.
    """
    records = []
    for path in map(Path, paths):
        files = sorted(path.rglob("evaluation.json")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise FileNotFoundError(f"no evaluation.json at or below {path}: run the bundle's `evaluating` first")
        for file in files:
            record = json.loads(file.read_text(encoding="utf-8"))
            missing = {"task", "model", "fold", "cases", "training_patients"} - set(record)
            if missing:
                raise ValueError(f"{file} is no record of an evaluation: it lacks {sorted(missing)}")
            records.append({**record, "file": str(file)})
    return records


def _split(record: dict[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(record["training_patients"]), frozenset(case["patient"] for case in record["cases"])


def _check_splits(records: list[dict[str, Any]]) -> None:
    """The same fold of the same task must mean the same patients, and folds must not share held-out patients."""
    for task in {record["task"] for record in records}:
        of_task = [record for record in records if record["task"] == task]
        first: dict[Any, dict[str, Any]] = {}
        for record in of_task:
            other = first.setdefault(record["fold"], record)
            for part, mine, theirs in zip(("training", "scored"), _split(record), _split(other), strict=True):
                if mine != theirs:
                    raise MixedSplitsError(
                        f"{task}, fold {record['fold']}: the {part} patients of {record['file']} and {other['file']} "
                        f"differ ({len(mine - theirs)} only in the first, {len(theirs - mine)} only in the second)"
                    )
        folds_of = {
            model: {r["fold"] for r in of_task if r["model"] == model} for model in {r["model"] for r in of_task}
        }
        reference = next(iter(folds_of.values()))
        if any(folds != reference for folds in folds_of.values()):
            listing = ", ".join(f"{model}: {sorted(map(str, folds))}" for model, folds in sorted(folds_of.items()))
            raise MixedSplitsError(f"{task}: the models were scored on different folds ({listing})")


def collect_rows(records: list[dict[str, Any]], *, paper: bool = True, allow_mixed: bool = False) -> list[Row]:
    """One row for each task and model, with the paper's figures beside them.

    Args:
        records: from :func:`read_evaluations`.
        paper: add the figures of the paper's Table 1 for the tasks that occur, as rows of source ``"paper"``.
        allow_mixed: do not check that the models share their splits.

    Raises:
        MixedSplitsError: if two runs of a task do not share their split, fold by fold.
        ValueError: if a model has two records for one fold.
    """
    if not allow_mixed:
        _check_splits(records)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["task"], record["model"]), []).append(record)
    rows = []
    for (task, model), members in sorted(groups.items()):
        folds = [0 if record["fold"] is None else record["fold"] for record in members]
        if len(set(folds)) != len(folds):
            raise ValueError(f"{task}, {model}: two records for one fold: {[record['file'] for record in members]}")
        scores = [100 * float(record["mean"]["dice"]["mean"]) for record in members]
        deviation = statistics.stdev(scores) if len(scores) > 1 else None
        cases = sum(len(record["cases"]) for record in members)
        rows.append(Row(task, model, tuple(sorted(folds)), statistics.mean(scores), deviation, cases, "measured"))
    if paper:
        for task in sorted({row.task for row in rows}):
            rows += [Row(task, model, (), dice, None, 0, "paper") for model, dice in paper_column(task).items()]
    return rows


def _cell(row: Row) -> str:
    return f"{row.mean:.2f}" if row.deviation is None else f"{row.mean:.2f} ± {row.deviation:.2f}"


def to_markdown(rows: Sequence[Row]) -> str:
    """Tasks as columns and models as rows; figures of the paper in italics and named as the paper's."""
    tasks = sorted({row.task for row in rows})
    lines = ["| Dice, % | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for source in ("measured", "paper"):
        for model in sorted({row.model for row in rows if row.source == source}):
            cells = []
            for task in tasks:
                row = next((r for r in rows if (r.source, r.model, r.task) == (source, model, task)), None)
                cells.append("" if row is None else _cell(row) if source == "measured" else f"*{_cell(row)}*")
            name = f"**{model}** (measured here)" if source == "measured" else f"*{model} (paper, Table 1)*"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    notes = [
        f"{row.task}, {row.model}: {row.cases} cases, fold{'s' if len(row.folds) > 1 else ''} "
        f"{', '.join(map(str, row.folds))}."
        for row in rows
        if row.source == "measured"
    ]
    note = "Mean (± standard deviation over folds) of the mean Dice over classes. "
    paper = "Figures in italics are the paper's, not measured here. " if any(r.source == "paper" for r in rows) else ""
    return "\n".join([*lines, "", note + paper + " ".join(notes)]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line for each task and model."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["task", "model", "source", "dice_percent", "standard_deviation", "folds", "cases"])
    for row in rows:
        deviation = "" if row.deviation is None else f"{row.deviation:.4f}"
        folds = " ".join(map(str, row.folds))
        writer.writerow([row.task, row.model, row.source, f"{row.mean:.4f}", deviation, folds, row.cases or ""])
    return stream.getvalue()
