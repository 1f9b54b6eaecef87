"""Evaluations of several models and folds in one table, in the form of the paper's Table 1."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.paths import read_json
from ..engines.files import csv_cell
from .paper import paper_column
from .tables import markdown


class MixedSplitsError(ValueError):
    """Runs to be compared were not trained and scored on the same patients, or not by the same rule."""


def read_evaluations(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Read ``evaluation.json`` files; a folder stands for all of them below it.

    FileNotFoundError if a path holds none, ValueError if a file is not the record of an evaluation.
    """
    records = []
    for path in map(Path, paths):
        files = sorted(path.rglob("evaluation.json")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise FileNotFoundError(f"no evaluation.json at or below {path}: run the bundle's `evaluating` first")
        for file in files:
            record = read_json(file)
            if missing := {"task", "model", "fold", "cases", "training_patients", "mean"} - set(record):
                raise ValueError(f"{file} is no record of an evaluation: it lacks {sorted(missing)}")
            try:
                float(record["mean"]["dice"]["mean"])
            except (KeyError, TypeError) as error:
                raise ValueError(f"{file} has no mean Dice: {record['mean']}") from error
            records.append({**record, "fold": record["fold"] or 0, "file": str(file)})
    if not records:
        raise FileNotFoundError("no evaluation.json was named: expected files or folders")
    return records


def _check(task: str, records: Sequence[Mapping[str, Any]], folds: Mapping[str, Sequence[Any]]) -> None:
    """The same fold must mean the same patients, all models must have the same folds, scored by one rule."""
    for record in records:
        other = next(r for r in records if r["fold"] == record["fold"])
        patients = [(set(r["training_patients"]), {case["patient"] for case in r["cases"]}) for r in (record, other)]
        for part, mine, theirs in zip(("training", "scored"), *patients):
            if mine != theirs:
                raise MixedSplitsError(
                    f"{task}, fold {record['fold']}: the {part} patients of {record['file']} and {other['file']} "
                    f"differ ({len(mine - theirs)} only in the first, {len(theirs - mine)} only in the second)"
                )
        if record.get("empty_masks") != records[0].get("empty_masks"):
            files = f"{record['file']} and {records[0]['file']}"
            raise MixedSplitsError(f"{task}: {files} count empty masks by other rules: run `evaluating` again")
    if len({frozenset(found) for found in folds.values()}) > 1:
        listing = ", ".join(f"{model}: {found}" for model, found in folds.items())
        raise MixedSplitsError(f"{task}: the models were scored on different folds ({listing})")


def folds_table(records: Sequence[Mapping[str, Any]], *, paper: bool = True, allow_mixed: bool = False) -> pd.DataFrame:
    """Mean Dice of each task and model over its folds, in percent.

    ``paper`` adds the figures of the paper's Table 1 for the tasks that occur; ``allow_mixed`` does not check that the
    models share their splits.

    Columns: ``task``, ``model``, ``source`` (``measured`` or ``paper``), ``dice_percent``, ``standard_deviation``
    (sample, over folds; NaN for one fold), ``folds``, ``cases`` and ``empty_masks`` (the rule).

    Raises:
        MixedSplitsError: if two runs of a task do not share their split, fold by fold, or their rule for empty masks.
        ValueError: if a model has two records for one fold.
    """
    rows: list[dict[str, Any]] = []
    for task in sorted({record["task"] for record in records}):
        own = [record for record in records if record["task"] == task]
        models = {name: [r for r in own if r["model"] == name] for name in sorted({r["model"] for r in own})}
        folds = {model: sorted(r["fold"] for r in members) for model, members in models.items()}
        if not allow_mixed:
            _check(task, own, folds)
        for model, members in models.items():
            if len({*folds[model]}) != len(members):
                raise ValueError(f"{task}, {model}: two records for one fold: {[r['file'] for r in members]}")
            dice = pd.Series([100 * float(r["mean"]["dice"]["mean"]) for r in members])
            row = {"task": task, "model": model, "source": "measured", "dice_percent": dice.mean()}
            row |= {"standard_deviation": dice.std(), "folds": " ".join(map(str, folds[model]))}
            row |= {"cases": sum(len(r["cases"]) for r in members), "empty_masks": members[0].get("empty_masks")}
            rows.append(row)
        for model, dice in paper_column(task).items() if paper else ():
            rows.append({"task": task, "model": model, "source": "paper", "dice_percent": dice, "folds": ""})
    return pd.DataFrame(rows).sort_values("source", kind="stable").astype({"cases": "Int64"})


def folds_csv(rows: pd.DataFrame) -> str:
    """One line for each task and model."""
    columns = ["task", "model", "source", "dice_percent", "standard_deviation", "folds", "cases"]
    return rows[columns].map(csv_cell).to_csv(index=False, float_format="%.4f")


def folds_markdown(rows: pd.DataFrame) -> str:
    """Tasks as columns and models as rows; the paper's figures in italics and named as the paper's."""
    tasks, lines = sorted(rows["task"].unique()), []
    styles = {"measured": ("{}", "**{}** (measured here)"), "paper": ("*{}*", "*{} (paper, Table 1)*")}
    deviations = rows["standard_deviation"].map(" ± {:.2f}".format, "ignore").fillna("")
    texts = rows["dice_percent"].map("{:.2f}".format) + deviations
    for source, (style, name) in styles.items():
        part = rows.assign(text=texts.map(style.format))[rows["source"] == source]
        cells = part.pivot(index="model", columns="task", values="text").reindex(columns=tasks).fillna("")
        lines += [[name.format(model), *line] for model, line in zip(cells.index, cells.to_numpy())]
    measured = rows[rows["source"] == "measured"]
    notes = ["Mean (± standard deviation over folds) of the mean Dice over classes."]
    notes += measured["empty_masks"].dropna().unique().tolist()
    notes += ["Figures in italics are the paper's, not measured here."] if len(measured) < len(rows) else []
    for r in measured.itertuples():
        folds = f"fold{'s' if ' ' in r.folds else ''} {r.folds.replace(' ', ', ')}"
        notes.append(f"{r.task}, {r.model}: {r.cases} cases, {folds}.")
    return markdown(["Dice, %", *tasks], lines) + "\n" + " ".join(notes) + "\n"
