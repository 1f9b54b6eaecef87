import csv
import json
import math
import statistics
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from swinfuse_components.finetuning import (
    GENERIC_DESCRIPTION,
    common_description,
    fingerprint,
    load_ensemble,
    require_unseen,
    score_label_maps,
    write_description,
    write_evaluation,
)
from swinfuse_components.finetuning.reference import PAPER_TABLE_1, TABLE_1_TASKS, paper_column
from swinfuse_components.finetuning.tables import MixedSplitsError, collect_rows, read_evaluations, to_csv, to_markdown

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
    with open(tmp_path / "m/0/cases.csv", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream))[2] == {
            "patient": "c",
            "image": "c.nii.gz",
            "dice first": "0.7",
            "dice second": "0.35",
        }


def test_the_table_has_mean_and_deviation_over_folds_and_marks_the_papers_figures(tmp_path: Path) -> None:
    for model, shift in (("SwinFUSE", 0.0), ("Swin UNETR", 0.1)):
        record(tmp_path, model, 0, ["a", "b"], [0.4 + shift, 0.6 + shift], ["c", "d"])
        record(tmp_path, model, 1, ["c", "d"], [0.7 + shift, 0.9 + shift], ["a", "b"])
    rows = collect_rows(read_evaluations([tmp_path]))
    (row,) = [row for row in rows if row.model == "SwinFUSE" and row.source == "measured"]
    folds = [100 * 0.75 * 0.5, 100 * 0.75 * 0.8]  # mean over two regions, one half of the other
    assert row.mean == pytest.approx(statistics.mean(folds)) and row.deviation == pytest.approx(statistics.stdev(folds))
    assert row.cases == 4 and row.folds == (0, 1)
    text = to_markdown(rows)
    assert "| **SwinFUSE** (measured here) | 48.75 ± 15.91 |" in text
    assert "| *SwinFUSE (paper, Table 1)* | *86.76* |" in text and "not measured here" in text
    table = list(csv.DictReader(to_csv(rows).splitlines()))
    assert {line["source"] for line in table} == {"measured", "paper"} and len(table) == 2 + 4
    assert not [row for row in collect_rows(read_evaluations([tmp_path]), paper=False) if row.source == "paper"]


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
        collect_rows(records)
    assert len(collect_rows(records, allow_mixed=True, paper=False)) == 2


def test_files_that_are_no_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="evaluating"):
        read_evaluations([tmp_path])
    (tmp_path / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        read_evaluations([tmp_path])


def test_the_papers_table_is_complete() -> None:
    assert len(TABLE_1_TASKS) == 10 and all(len(row) == 10 for row in PAPER_TABLE_1.values())
    assert paper_column("Hippocampus") == {
        "nnU-Net": 89.76,
        "Swin UNETR": 88.39,
        "SwinFUSE": 86.76,
        "SwinFUSE (P)": 87.91,
    }
    assert paper_column("HepaticVessel")["SwinFUSE (P)"] == 71.61 and paper_column("BRATS")["nnU-Net"] == 64.50
    assert paper_column("something else") == {}


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
    with pytest.raises(ValueError, match="axes"):
        score_label_maps(tmp_path / "elsewhere.nii.gz", tmp_path / "truth.nii.gz", REGIONS)


def test_models_of_one_ensemble_must_agree_and_must_not_have_seen_the_data(tmp_path: Path) -> None:
    base = {**GENERIC_DESCRIPTION, "histogram": [[0.0, 1.0]], "largest_component": [1, 2]}
    for fold, patients in enumerate((["a", "b"], ["b", "c"])):
        write_description(tmp_path / str(fold) / "model.json", {**base, "training_patients": patients})
        base |= {"histogram": [[0.5, 0.5]], "largest_component": [2, 3]}
    shared = common_description([tmp_path / "0", tmp_path / "1"])
    assert shared["training_patients"] == ["a", "b", "c"]
    assert shared["histogram"] == [[0.25, 0.75]] and shared["largest_component"] == [2]
    items = [{"image": "x", "patient": "c"}, {"image": "y", "patient": "d"}]
    with pytest.raises(ValueError, match="1 of 2 patients .* c"):
        require_unseen(items, shared)
    assert require_unseen(items, shared, allow_seen=True) == items == require_unseen(items, {})
    write_description(tmp_path / "1" / "model.json", {**base, "ct_window": [0, 1]})
    with pytest.raises(ValueError, match="'ct_window'.*0, 1"):
        common_description([tmp_path / "0", tmp_path / "1"])
    with pytest.raises(FileNotFoundError, match="model.json"):
        common_description([tmp_path / "2"])
    with pytest.raises(ValueError, match="at least one"):
        common_description([])


def test_an_ensemble_is_loaded_completely_or_not_at_all(tmp_path: Path) -> None:
    networks = [torch.nn.Linear(3, 2) for _ in range(2)]
    for number, network in enumerate(networks):
        torch.save({"model": network.state_dict()}, tmp_path / f"{number}.pt")
    loaded = load_ensemble(torch.nn.Linear(3, 2), [tmp_path / "0.pt", tmp_path / "1.pt"])
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(networks, loaded, strict=True))
    torch.save({"model": {"weight": networks[0].weight.detach()}}, tmp_path / "1.pt")
    with pytest.raises(RuntimeError, match="bias"):
        load_ensemble(torch.nn.Linear(3, 2), [tmp_path / "0.pt", tmp_path / "1.pt"])


def test_spacing_and_window_are_measured_in_any_order_of_the_list(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    items, inside = [], []
    for number, size in enumerate((1.0, 1.5, 4.0)):
        image = generator.normal(50, 30, (12, 12, 12)).astype(np.int16)
        label = np.zeros((12, 12, 12), np.uint8)
        label[3:9, 3:9, 3:9] = 1
        inside.append(image[label > 0])
        # stored as left, posterior, superior with the slice axis first
        affine = np.array([[0, -0.8, 0, 0], [0, 0, -0.9, 0], [size, 0, 0, 0], [0, 0, 0, 1.0]])
        paths = {key: str(tmp_path / f"{key}{number}.nii.gz") for key in ("image", "label")}
        nibabel.save(nibabel.Nifti1Image(image, affine), paths["image"])
        nibabel.save(nibabel.Nifti1Image(label, affine), paths["label"])
        items.append(paths)
    measured = fingerprint(items, "ct")
    assert measured["spacing"] == pytest.approx([0.8, 0.9, 1.5], abs=1e-3)
    assert measured["ct_window"] == pytest.approx(np.percentile(np.concatenate(inside), (0.5, 99.5)), abs=0.06)
    assert fingerprint(items[::-1], "ct") == measured
    assert fingerprint(items, "mr")["ct_window"] is None
    known = {"spacing": [1, 1, 1], "ct_window": [0, 5]}
    assert fingerprint([], "ct", known=known) == known
    with pytest.raises(ValueError, match="no items"):
        fingerprint([], "ct")
