"""Evaluations of several models and folds in one table, in the form of the paper's Table 1."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..engines.files import csv_cell
from .paper import paper_column
from .tables import markdown


class MixedSplitsError(ValueError):
    """Runs to be compared were not trained and scored on the same patients, or not by the same rule."""


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


def _check(records: Sequence[Mapping[str, Any]]) -> None:
    """The same fold of a task must mean the same patients, all models must have the same folds, scored by one rule."""
    first: dict[Any, Mapping[str, Any]] = {}
    folds: dict[str, dict[str, set[str]]] = {}
    for record in records:
        task, fold = record["task"], record["fold"]
        folds.setdefault(task, {}).setdefault(record["model"], set()).add(str(fold))
        other = first.setdefault((task, fold), record)
        pairs = {
            "training": [set(r["training_patients"]) for r in (record, other)],
            "scored": [{case["patient"] for case in r["cases"]} for r in (record, other)],
        }
        for part, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise MixedSplitsError(
                    f"{task}, fold {fold}: the {part} patients of {record['file']} and {other['file']} differ "
                    f"({len(mine - theirs)} only in the first, {len(theirs - mine)} only in the second)"
                )
        other = first.setdefault(task, record)
        if record.get("empty_masks") != other.get("empty_masks"):
            files = f"{record['file']} and {other['file']}"
            raise MixedSplitsError(f"{task}: {files} count empty masks by other rules: run `evaluating` again")
    for task, models in folds.items():
        if len({frozenset(found) for found in models.values()}) > 1:
            listing = ", ".join(f"{model}: {sorted(found)}" for model, found in sorted(models.items()))
            raise MixedSplitsError(f"{task}: the models were scored on different folds ({listing})")


def folds_table(records: Sequence[Mapping[str, Any]], *, paper: bool = True, allow_mixed: bool = False) -> pd.DataFrame:
    """Mean Dice of each task and model over its folds, in percent.

    Args:
        records: from :func:`read_evaluations`.
        paper: add the figures of the paper's Table 1 for the tasks that occur, as rows of source ``"paper"``.
        allow_mixed: do not check that the models share their splits.

    Returns:
        columns ``task``, ``model``, ``source`` (``measured`` or ``paper``), ``dice_percent``, ``standard_deviation``
        (sample, over folds; NaN for one fold), ``folds``, ``cases`` and ``empty_masks`` (the rule).

    Raises:
        MixedSplitsError: if two runs of a task do not share their split, fold by fold, or their rule for empty masks.
        ValueError: if a model has two records for one fold.
    """
    if not allow_mixed:
        _check(records)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["task"], record["model"]), []).append(record)
    rows: list[dict[str, Any]] = []
    for (task, model), members in sorted(groups.items()):
        folds = sorted(record["fold"] or 0 for record in members)
        if len(set(folds)) != len(folds):
            raise ValueError(f"{task}, {model}: two records for one fold: {[record['file'] for record in members]}")
        dice = pd.Series([100 * float(record["mean"]["dice"]["mean"]) for record in members])
        row = {"task": task, "model": model, "source": "measured", "dice_percent": dice.mean()}
        row |= {"standard_deviation": dice.std(), "folds": " ".join(map(str, folds))}
        row |= {"cases": sum(len(r["cases"]) for r in members), "empty_masks": members[0].get("empty_masks")}
        rows.append(row)
    if paper:
        for task in sorted({task for task, _ in groups}):
            shared = {"task": task, "source": "paper", "folds": ""}
            rows += [{**shared, "model": m, "dice_percent": dice} for m, dice in paper_column(task).items()]
    return pd.DataFrame(rows).astype({"cases": "Int64"})


def folds_csv(rows: pd.DataFrame) -> str:
    """One line for each task and model."""
    columns = ["task", "model", "source", "dice_percent", "standard_deviation", "folds", "cases"]
    return rows[columns].map(csv_cell).to_csv(index=False, float_format="%.4f")


def folds_markdown(rows: pd.DataFrame) -> str:
    """Tasks as columns and models as rows; the paper's figures in italics and named as the paper's."""
    tasks, lines = sorted(rows["task"].unique()), []
    styles = {"measured": ("{}", "**{}** (measured here)"), "paper": ("*{}*", "*{} (paper, Table 1)*")}
    for source, (style, name) in styles.items():
        part = rows[rows["source"] == source]
        cells = {
            (r.model, r.task): style.format(_cell(r.dice_percent, r.standard_deviation)) for r in part.itertuples()
        }
        for model in sorted(part["model"].unique()):
            lines.append([name.format(model), *(cells.get((model, task), "") for task in tasks)])
    measured = rows[rows["source"] == "measured"]
    notes = [
        "Mean (± standard deviation over folds) of the mean Dice over classes.",
        *measured["empty_masks"].dropna().unique(),
    ]
    notes += ["Figures in italics are the paper's, not measured here."] if len(measured) < len(rows) else []
    for r in measured.itertuples():
        folds = f"fold{'s' if ' ' in r.folds else ''} {r.folds.replace(' ', ', ')}"
        notes.append(f"{r.task}, {r.model}: {r.cases} cases, {folds}.")
    return markdown(["Dice, %", *tasks], lines) + "\n" + " ".join(notes) + "\n"


def _cell(mean: float, deviation: float) -> str:
    return f"{mean:.2f}" if pd.isna(deviation) else f"{mean:.2f} ± {deviation:.2f}"
