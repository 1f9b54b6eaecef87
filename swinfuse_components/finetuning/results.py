"""The record of an evaluation, one file for each model and fold, from which tables are made."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.transforms import LoadImage

__all__ = ["EvaluationRecord", "score_label_maps", "write_evaluation"]


def _number(value: float) -> float | None:
    """JSON has no NaN: a score that is not defined (an empty reference) is null."""
    return None if math.isnan(value) or math.isinf(value) else round(float(value), 6)


def write_evaluation(
    path: str | os.PathLike[str], description: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], **facts: Any
) -> dict[str, Any]:
    """Write ``evaluation.json`` and, beside it, ``cases.csv``.

    Args:
        path: the JSON file.
        description: of the model: ``name`` of the task, ``model_name``, ``regions``, ``training_patients``.
        cases: one ``{"patient": …, "image": …, metric: {region: value}}`` per image, NaN where a score is not defined.
        facts: whatever else identifies the run, such as ``fold``.

    Returns:
        the record: ``task``, ``model``, ``regions``, ``training_patients``, the facts, ``cases`` and ``mean`` (mean of
        each metric and region over the cases where it is defined, and ``"mean"`` over regions).
    """
    metrics = [key for key in (cases[0] if cases else {}) if key not in ("patient", "image")]
    mean: dict[str, dict[str, float | None]] = {}
    for metric in metrics:
        columns = {
            region: [value for case in cases if not math.isnan(value := float(case[metric][region]))]
            for region in cases[0][metric]
        }
        means = {region: sum(column) / len(column) if column else math.nan for region, column in columns.items()}
        defined = [value for value in means.values() if not math.isnan(value)]
        means["mean"] = sum(defined) / len(defined) if defined else math.nan
        mean[metric] = {region: _number(value) for region, value in means.items()}
    record = {
        "task": description["name"],
        "model": description.get("model_name", "unnamed"),
        "regions": description.get("regions"),
        **facts,
        "training_patients": list(description.get("training_patients", [])),
        "mean": mean,
        "cases": [
            {
                "patient": str(case["patient"]),
                "image": Path(str(case["image"])).name,
                **{m: {r: _number(float(v)) for r, v in case[m].items()} for m in metrics},
            }
            for case in cases
        ],
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    with (target.parent / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = [(metric, region) for metric in metrics for region in cases[0][metric]]
        writer.writerow(["patient", "image", *(f"{metric} {region}" for metric, region in names)])
        for case in record["cases"]:
            writer.writerow([case["patient"], case["image"], *(case[metric][region] for metric, region in names)])
    return record


class EvaluationRecord:
    """Handler that writes :func:`write_evaluation`'s files from the per-case details of an evaluator's metrics.

    Args:
        path: the JSON file.
        description: of the model.
        metrics: ``{name in the record: name of a metric of the evaluator}``; the metric keeps details per region.
        facts: see :func:`write_evaluation`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        description: Mapping[str, Any],
        metrics: Mapping[str, str],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.description = description
        self.metrics = dict(metrics)
        self.facts = dict(facts or {})
        self.cases: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after its metrics."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._remember)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _remember(self, engine: Engine) -> None:
        for item in engine.state.batch:
            image = item["image"].meta["filename_or_obj"]
            self.cases.append({"patient": item.get("patient", Path(str(image)).name), "image": image})

    def _write(self, engine: Engine) -> None:
        regions = list(self.description["regions"])
        for name, metric in self.metrics.items():
            for case, row in zip(self.cases, engine.state.metric_details[metric], strict=True):
                case[name] = dict(zip(regions, row.tolist(), strict=True))
        write_evaluation(self.path, self.description, self.cases, **self.facts)


def score_label_maps(
    prediction: str | os.PathLike[str], reference: str | os.PathLike[str], regions: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Dice and 95 % Hausdorff distance (mm) of a label map in a file against the reference, for each region.

    The same MONAI functions as in the evaluation of the bundles, for predictions of other tools.

    Raises:
        ValueError: if the two are not on one grid.
    """
    load = LoadImage(image_only=True, ensure_channel_first=True)
    found, expected = load(prediction), load(reference)
    if found.shape != expected.shape or not torch.allclose(found.affine, expected.affine, atol=1e-3):
        raise ValueError(
            f"{prediction} has shape {tuple(found.shape)}, {reference} {tuple(expected.shape)}, or other axes"
        )
    stacked = [
        torch.stack([torch.isin(x.as_tensor()[0].long(), torch.tensor(list(v))) for v in regions.values()])[
            None
        ].float()
        for x in (found, expected)
    ]
    spacing = [float(size) for size in expected.affine[:3, :3].norm(dim=0)]
    dice = compute_dice(*stacked, include_background=True)[0].tolist()
    distance = compute_hausdorff_distance(*stacked, include_background=True, percentile=95, spacing=spacing)[0].tolist()
    return {"dice": dict(zip(regions, dice, strict=True)), "hd95_mm": dict(zip(regions, distance, strict=True))}
