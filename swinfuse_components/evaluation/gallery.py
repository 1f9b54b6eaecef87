"""Volumes of a finished evaluation, gathered for drawing: image, truth and every model's answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import LoadImage

from ..visualization.segmentations import CasePicture
from .matrix import prediction_path
from .records import CaseTable, Row
from .tables import row_name

#: Hounsfield units shown as black and white
CT_WINDOW = (-160.0, 240.0)


def read_index(output_dir: str | Path) -> dict[str, Any]:
    """What an evaluation compared and where its volumes lie, from ``cases.json``: class_mapping, models, targets.

    Raises:
        FileNotFoundError: if there is no evaluation in the folder.
    """
    file = Path(output_dir) / "cases.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: expected the output_dir of a finished evaluation")
    return json.loads(file.read_text(encoding="utf-8"))


def choose_cases(rows: Sequence[Row], count: int) -> list[str]:
    """Cases spread evenly from the worst to the best mean Dice; the median one if only one is wanted."""
    dice: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        dice[row.case].append(row.dice)
    ranked = sorted(dice, key=lambda case: float(np.mean(dice[case])))
    places = np.linspace(0, len(ranked) - 1, count + 2)[1:-1] if count < len(ranked) else range(len(ranked))
    return list(dict.fromkeys(ranked[round(float(place))] for place in places))


def gallery(
    output_dir: str | Path, target: str, *, cases: Sequence[str] | None = None, count: int = 2, view: str = "image"
) -> list[CasePicture]:
    """Pictures of a column's cases, with every model whose answers were kept.

    Args:
        output_dir: of the evaluation.
        target: the column.
        cases: names of cases; by default ``count`` of them between the worst and the best.
        count: see ``cases``.
        view: what the models were shown.

    Raises:
        FileNotFoundError: if there is no evaluation, or no prediction was kept.
        ValueError: if the column or a case does not exist.
    """
    folder, index = Path(output_dir), read_index(output_dir)
    if target not in index["targets"]:
        raise ValueError(f"no target {target!r} in {folder}: it has {sorted(index['targets'])}")
    known = index["targets"][target]["cases"]
    rows = [row for row in CaseTable(folder / "cases.csv").rows if row.target == target and row.view == view]
    models = [
        (model, trained_on)
        for model, trained_on in dict.fromkeys((row.model, row.trained_on) for row in rows)
        if prediction_path(folder, model, trained_on, view, target, "x").parent.is_dir()
    ]
    shown = {model: {row.case: row for row in rows if (row.model, row.trained_on) == model} for model in models}
    complete = [row for row in rows if all(row.case in by_case for by_case in shown.values())]
    names = list(cases) if cases is not None else choose_cases(complete, count)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"no case {unknown or ''} of {target} in {folder}: expected some of {sorted(known)}")
    return [_picture(folder, target, name, index, shown, view) for name in names]


def drawn_classes(index: Mapping[str, Any], target: str) -> dict[str, int]:
    """Classes of a column as its pictures show them: those that were compared, or the union of the foreground."""
    if not index["class_mapping"]:
        return {"foreground": 1}
    classes = index["targets"][target]["classes"]
    return {name: classes[name] for name in index["class_mapping"].values()}


def _compared(labels: np.ndarray, values: Mapping[int, int] | None) -> np.ndarray:
    """Label map with values as they were compared: mapped one by one, or 1 for all foreground."""
    if values is None:
        return (labels > 0).astype(np.uint8)
    result = np.zeros(labels.shape, dtype=np.uint8)
    for ours, theirs in values.items():
        result[labels == ours] = theirs
    return result


def _picture(
    folder: Path,
    target: str,
    name: str,
    index: Mapping[str, Any],
    shown: Mapping[tuple[str, str], Mapping[str, Row]],
    view: str,
) -> CasePicture:
    load = LoadImage(ensure_channel_first=True)
    column, mapping = index["targets"][target], index["class_mapping"]
    entry = column["cases"][name]
    image, truth = load(entry["image"]), load(entry["label"])
    classes = drawn_classes(index, target)
    predictions, dice = {}, {}
    several = len({trained_on for _, trained_on in shown}) > 1
    for (model, trained_on), by_case in shown.items():
        title = row_name(model, trained_on, view) if several else model
        own = next(m["classes"] for m in index["models"] if (m["model"], m["trained_on"]) == (model, trained_on))
        values = {own[ours]: classes[theirs] for ours, theirs in mapping.items()} if mapping else None
        labels = np.asarray(load(prediction_path(folder, model, trained_on, view, target, name))[0])
        predictions[title] = _compared(labels, values)
        if name in by_case and len(classes) == 1:
            dice[title] = by_case[name].dice
    return CasePicture(
        name=name,
        image=np.asarray(image[column["channel"] or 0]),
        affine=np.asarray(image.affine),
        truth=_compared(np.asarray(truth[0]), {v: v for v in classes.values()} if mapping else None),
        predictions=predictions,
        dice=dice,
        limits=CT_WINDOW if column["modality"] == "ct" else None,
    )
