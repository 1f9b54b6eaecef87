"""Records of evaluations, and the table that is made of them."""

import csv
import json
import math
import statistics
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from swinfuse_components.evaluation import EvaluationRecord, score_label_maps, write_evaluation
from swinfuse_components.evaluation.folds_table import (
    MixedSplitsError,
    folds_csv,
    folds_markdown,
    folds_table,
    read_evaluations,
)

from ..models import read_rows

REGIONS = {"first": [1], "all": [1, 2]}


def record(path: Path, model: str, fold: int, scored: list[str], dice: list[float], trained: list[str] | None = None):
    description = {"name": "Hippocampus", "model_name": model, "training_patients": trained or ["t1", "t2"]}
    cases = [
        {"patient": patient, "image": f"/data/{patient}.nii.gz", "dice": {"first": value, "second": value / 2}}
        for patient, value in zip(scored, dice, strict=True)
    ]
    return write_evaluation(path / model / str(fold) / "evaluation.json", description, cases, fold=fold)


def test_scores_that_are_not_defined_stay_out_of_the_mean(tmp_path: Path) -> None:
    written = record(tmp_path, "m", 0, ["a", "b", "c"], [0.5, math.nan, 0.7])
    read = json.loads((tmp_path / "m/0/evaluation.json").read_text(encoding="utf-8"))
    assert read == written
    assert read["mean"]["dice"] == pytest.approx({"first": 0.6, "second": 0.3, "mean": 0.45})
    assert read["cases"][1]["dice"] == {"first": None, "second": None} and read["cases"][0]["image"] == "a.nii.gz"
    line = {"patient": "c", "image": "c.nii.gz", "dice first": "0.7", "dice second": "0.35"}
    assert read_rows(tmp_path / "m/0/cases.csv")[2] == line


def test_the_table_has_mean_and_deviation_over_folds_and_marks_the_papers_figures(tmp_path: Path) -> None:
    for model, shift in (("SwinFUSE", 0.0), ("Swin UNETR", 0.1)):
        record(tmp_path, model, 0, ["a", "b"], [0.4 + shift, 0.6 + shift], ["c", "d"])
        record(tmp_path, model, 1, ["c", "d"], [0.7 + shift, 0.9 + shift], ["a", "b"])
    rows = folds_table(read_evaluations([tmp_path]))
    row = rows[(rows["model"] == "SwinFUSE") & (rows["source"] == "measured")].iloc[0]
    folds = [100 * 0.75 * 0.5, 100 * 0.75 * 0.8]  # mean over two regions, one half of the other
    assert row["dice_percent"] == pytest.approx(statistics.mean(folds))
    assert row["standard_deviation"] == pytest.approx(statistics.stdev(folds))
    assert row["cases"] == 4 and row["folds"] == "0 1"
    text = folds_markdown(rows)
    assert "| **SwinFUSE** (measured here) | 48.75 ± 15.91 |" in text and "left out of the mean" in text
    assert "| *SwinFUSE (paper, Table 1)* | *86.76* |" in text and "not measured here" in text
    table = list(csv.DictReader(folds_csv(rows).splitlines()))
    assert {line["source"] for line in table} == {"measured", "paper"} and len(table) == 2 + 4
    assert set(folds_table(read_evaluations([tmp_path]), paper=False)["source"]) == {"measured"}


@pytest.mark.parametrize(
    ("scored", "trained", "fold", "message"),
    [
        (["a", "x"], ["c", "d"], 0, "scored patients"),
        (["a", "b"], ["c", "e"], 0, "training patients"),
        (["a", "b"], ["c", "d"], 1, "different folds"),
    ],
)
def test_different_splits_are_not_mixed_in_silence(
    tmp_path: Path, scored: list[str], trained: list[str], fold: int, message: str
) -> None:
    record(tmp_path, "one", 0, ["a", "b"], [0.5, 0.5], ["c", "d"])
    record(tmp_path, "two", fold, scored, [0.5, 0.5], trained)
    records = read_evaluations([tmp_path])
    with pytest.raises(MixedSplitsError, match=message):
        folds_table(records)
    assert len(folds_table(records, allow_mixed=True, paper=False)) == 2


def test_records_by_another_rule_for_empty_masks_are_not_mixed_in(tmp_path: Path) -> None:
    record(tmp_path, "one", 0, ["a"], [0.5])
    record(tmp_path, "two", 0, ["a"], [0.5])
    old = json.loads((tmp_path / "two/0/evaluation.json").read_text(encoding="utf-8"))
    del old["empty_masks"]
    (tmp_path / "two/0/evaluation.json").write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(MixedSplitsError, match="empty masks"):
        folds_table(read_evaluations([tmp_path]))


def test_the_handler_scores_regions_by_the_one_rule(tmp_path: Path) -> None:
    """A region absent from label and prediction is undefined; absent from the label alone, its Dice is 0."""
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))
    box, empty = torch.zeros(8, 8, 8), torch.zeros(8, 8, 8)
    box[2:5, 2:5, 2:5] = 1
    outputs = [
        {"pred": torch.stack([box, empty, box]), "label": MetaTensor(torch.stack([box, empty, empty]), affine=affine)},
        {"pred": torch.stack([box, box, empty]), "label": MetaTensor(torch.stack([box.roll(1, 2)] * 3), affine=affine)},
    ]
    names = iter(["a", "b"])
    images = [MetaTensor(box[None], meta={"filename_or_obj": f"/x/{name}.nii.gz"}) for name in names]

    def step(engine: Engine, number: int) -> list:
        engine.state.batch = [{"image": images[number], "patient": f"p{number}"}]
        return [outputs[number]]

    evaluator = Engine(step)
    handler = EvaluationRecord(tmp_path / "evaluation.json", {"name": "t", "regions": {"x": [1], "y": [2], "z": [3]}})
    handler.attach(evaluator)
    evaluator.run([0, 1])
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    diagonal = math.sqrt(16**2 + 16**2 + 24**2)
    assert written["cases"][0]["dice"] == {"x": 1, "y": None, "z": 0}
    assert written["cases"][0]["hd95_mm"] == pytest.approx({"x": 0, "y": None, "z": diagonal}, abs=1e-5)
    assert written["cases"][1]["hd95_mm"] == pytest.approx({"x": 3, "y": 3, "z": diagonal}, abs=1e-5)
    means = {"x": (1 + 2 / 3) / 2, "y": 2 / 3, "z": 0}
    assert written["mean"]["dice"] == pytest.approx({**means, "mean": sum(means.values()) / 3}, abs=1e-6)
    assert evaluator.state.metrics["val_mean_dice"] == written["mean"]["dice"]["mean"]


def test_files_that_are_no_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="evaluating"):
        read_evaluations([tmp_path])
    (tmp_path / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        read_evaluations([tmp_path])


def test_label_maps_in_files_are_scored_on_their_grid(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[2:6, 2:6, 2:6] = 1
    truth[6:8, 2:6, 2:6] = 2
    found = np.roll(truth, 1, axis=2)
    for name, array in (("truth", truth), ("found", found)):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    scores = score_label_maps(tmp_path / "found.nii.gz", tmp_path / "truth.nii.gz", REGIONS)
    for region, values in REGIONS.items():
        a, b = np.isin(found, values), np.isin(truth, values)
        assert scores["dice"][region] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert scores["hd95_mm"][region] == pytest.approx(3.0)
    nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), tmp_path / "elsewhere.nii.gz")
    with pytest.raises(ValueError, match="grid"):
        score_label_maps(tmp_path / "elsewhere.nii.gz", tmp_path / "truth.nii.gz", REGIONS)


def test_names_are_no_formulas_to_a_spreadsheet(tmp_path: Path) -> None:
    record(tmp_path, "=1+1", 0, ["+p"], [0.5])
    assert read_rows(tmp_path / "=1+1/0/cases.csv")[0]["patient"] == "'+p"
    line, *_ = csv.DictReader(folds_csv(folds_table(read_evaluations([tmp_path]))).splitlines())
    assert (line["model"], line["cases"], line["dice_percent"]) == ("'=1+1", "1", "37.5000")
