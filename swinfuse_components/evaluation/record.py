"""The record of a fine-tuned model's evaluation: ``evaluation.json``, one file for each model and fold."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events
from monai.transforms import LoadImage

from ..engines.files import atomic_write
from .scores import EMPTY_RULE, score_case, score_masks
from .tables import write_csv
from .targets import read_labels

logger = logging.getLogger(__name__)


def _numbers(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Rounded; JSON has no NaN: an undefined score is null."""
    return {name: None if math.isnan(value) else round(float(value), 6) for name, value in scores.items()}


def write_evaluation(
    path: str | os.PathLike[str], description: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], **facts: Any
) -> dict[str, Any]:
    """Write ``evaluation.json`` and, beside it, ``cases.csv``; others that were there are kept as ``<name>.previous``.

    ``description`` of the model holds ``name`` of the task, ``model_name``, ``regions``, ``training_patients``. There
    is one ``{"patient": …, "image": …, metric: {region: value}}`` per image in ``cases``, NaN where a score is not
    defined. ``facts`` are whatever else identifies the run, such as ``fold``.

    Returns the record: ``task``, ``model``, ``regions``, ``training_patients``, the facts, ``empty_masks`` (the rule),
    ``cases``, and ``mean``: of each metric and region over the cases where it is defined; ``"mean"`` is over regions.
    """
    metrics = [key for key in (cases[0] if cases else {}) if key not in ("patient", "image")]
    means = {metric: pd.DataFrame([case[metric] for case in cases]).mean() for metric in metrics}
    record = {
        "task": description["name"],
        "model": description.get("model_name", "unnamed"),
        "regions": description.get("regions"),
        **facts,
        "training_patients": list(description.get("training_patients", [])),
        "empty_masks": EMPTY_RULE,
        "mean": {metric: _numbers({**mean, "mean": mean.mean()}) for metric, mean in means.items()},
        "cases": [
            {"patient": str(case["patient"]), "image": Path(str(case["image"])).name}
            | {metric: _numbers(case[metric]) for metric in metrics}
            for case in cases
        ],
    }
    with atomic_write(Path(path), keep_other=True) as file:
        file.write(json.dumps(record, indent=1) + "\n")
    table = pd.json_normalize(record["cases"], sep=" ")
    write_csv(table, Path(path).with_name("cases.csv"), na_rep="", keep_other=True)
    return record


class EvaluationRecord:
    """Evaluator handler that scores every case and writes :func:`write_evaluation`'s files.

    The evaluator's output must hold ``pred`` and ``label`` with one binary channel for each region, on the label's
    grid. Its metrics become ``val_mean_dice`` and ``val_hd95_mm``, the means over cases and regions; handlers that
    print them stand behind this one. Arguments are those of :func:`write_evaluation`.
    """

    def __init__(
        self, path: str | os.PathLike[str], description: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.description, self.facts = path, description, dict(facts or {})
        self.cases: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _score(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            image = item["image"].meta["filename_or_obj"]
            case = {"patient": item.get("patient", Path(str(image)).name), "image": image, "dice": {}, "hd95_mm": {}}
            spacing = output["label"].affine[:3, :3].double().norm(dim=0).tolist()
            for region, pred, label in zip(self.description["regions"], output["pred"], output["label"], strict=True):
                scores = score_masks(pred.cpu(), label.cpu(), spacing)
                case["dice"][region], case["hd95_mm"][region] = scores.dice, scores.hausdorff95
            self.cases.append(case)

    def _write(self, engine: Engine) -> None:
        mean = write_evaluation(self.path, self.description, self.cases, **self.facts)["mean"]
        for name, metric in (("val_mean_dice", "dice"), ("val_hd95_mm", "hd95_mm")):
            value = mean.get(metric, {}).get("mean")
            engine.state.metrics[name] = math.nan if value is None else value
        logger.info("%d cases, %s. %s", len(self.cases), self.path, EMPTY_RULE)


def score_label_maps(
    prediction: str | os.PathLike[str], reference: str | os.PathLike[str], regions: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Dice and 95 % Hausdorff distance (mm) of a label map in a file against the reference on its grid, by region."""
    expected = LoadImage(ensure_channel_first=True)(reference)
    found, truth = (read_labels(str(path), expected) for path in (prediction, reference))
    classes = {name: (values, values) for name, values in regions.items()}
    scores = score_case(found, truth, expected.affine[:3, :3].norm(dim=0).tolist(), classes)
    fields = {"dice": "dice", "hd95_mm": "hausdorff95"}
    return {name: {region: getattr(s, field) for region, s in scores.items()} for name, field in fields.items()}
