"""Rows and columns from folders: real layouts, what a model's description decides, grids, and what is refused."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from swinfuse_components.evaluation.matrix import OutOfDistributionMatrix
from swinfuse_components.evaluation.models import PredictionFiles, model_source, model_sources, read_model, unseen
from swinfuse_components.evaluation.targets import Target, read_target
from swinfuse_components.finetuning import labels_of_regions

from ..models import BRATS, DESCRIPTION, write_model

SARCOMA: dict[str, Any] = {
    "name": "SarcomaCT",
    "labels": {"0": "background", "1": "tumour"},
    "spacing": [4.0, 4.0, 4.0],
    "ct_window": [-100.0, 100.0],
    "dim": "none",
    "training_patients": ["STS_001"],
}


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "run", **SARCOMA)


def test_a_model_and_a_target_from_real_layouts(swinfuse_data: Path, model: Path) -> None:
    target = read_target(swinfuse_data / "MSD_like" / "Task52_SarcomaMR", fold=0, limit=1)
    assert (target.name, target.modality, target.classes) == ("SarcomaMR", "mr", {"tumour": 1})
    source = model_source(model, overlap=0.0)
    assert source.name == "Swin UNETR" and source.problems(target) == []
    case = target.load(target.items[0])
    labels = source.predict(case)
    assert labels.shape == case.truth.shape and set(labels.ravel()) <= {0, 1}
    pet = read_target(swinfuse_data / "MSD_like" / "Task53_SarcomaPET", limit=1)
    assert (pet.modality, pet.load(pet.items[0]).modality) == ("pet", "pet")


def test_brats_needs_a_channel_for_a_model_of_one(swinfuse_data: Path, model: Path) -> None:
    source = model_source(model)
    whole = read_target(swinfuse_data / "BraTS21_like")
    assert (
        "takes 1 channel(s), target BraTS21_like shows 4 of ['flair', 't1ce', 't1', 't2']" in source.problems(whole)[0]
    )
    each = read_target(swinfuse_data / "BraTS21_like", channel="each")
    assert list(each.views) == [f"BraTS21_like [{c}]" for c in ("flair", "t1ce", "t1", "t2")]
    assert source.problems(each) == [] and each.classes is not None and 4 in each.classes.values()
    assert read_target(swinfuse_data / "BraTS21_like", channel="t2").views == {"BraTS21_like [t2]": 3}


def test_descriptions_decide(model: Path) -> None:
    def write(**changes: object) -> None:
        (model / "model.json").write_text(json.dumps(DESCRIPTION | SARCOMA | changes), encoding="utf-8")

    write(model_name="blank images", input="blank")
    source = model_source(model)
    assert source.name == "blank images"
    item = source.preprocessing({"image": torch.rand(1, 20, 20, 20) + 1, "modality": "mr"})
    assert not torch.as_tensor(item["image"]).any()
    write(input="nothing")
    with pytest.raises(ValueError, match="input 'nothing'"):
        model_source(model)
    write(roi_size=None)
    without_spacing = {k: v for k, v in (DESCRIPTION | SARCOMA).items() if k != "spacing"}
    (model / "model.json").write_text(json.dumps(without_spacing), encoding="utf-8")
    with pytest.raises(ValueError, match=r"model.json: missing \['spacing'\]"):
        read_model(model)
    (model / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_model(model)
    (model / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match="description of the model .*model.json"):
        read_model(model)


def test_names_lists_and_predictions(model: Path, tmp_path: Path) -> None:
    predictions = {"predictions": tmp_path, "trained_on": "Liver", "classes": {"liver": 1}}
    sources = model_sources({"A": [model, model / "model.pt"], "nnU-Net": predictions}, native=True)
    assert [s.name for s in sources] == ["A", "A", "nnU-Net"] and isinstance(sources[2], PredictionFiles)
    assert sources[0].native and sources[0].training_patients == {"STS_001"}  # type: ignore[union-attr]
    assert model_sources(str(model))[0].name == "Swin UNETR"


def test_patients_that_no_model_saw_in_training_or_pretraining(tmp_path: Path) -> None:
    model = write_model(tmp_path / "run", **SARCOMA, pretraining_patients=["STS_003_ct"])
    assert model_source(model).training_patients >= {"STS_001", "STS_003"}
    items = [{"patient": "STS_001"}, {"patient": "STS_003"}, {"patient": "STS_002"}]
    assert unseen(items, {"m": model}) == [{"patient": "STS_002"}]
    with pytest.raises(ValueError, match="every patient"):
        unseen(items[:1], {"m": model})


def test_nested_regions_become_the_labels_of_brats(tmp_path: Path, swinfuse_data: Path) -> None:
    source = model_source(write_model(tmp_path / "run", **BRATS), overlap=0.0)
    target = read_target(swinfuse_data / "BraTS21_like", limit=1)
    assert source.problems(target) == [] and source.classes["enhancing tumour"] == 4
    masks = torch.zeros(3, 1, 1, 4)  # TC, WT, ET
    masks[1, ..., :3] = masks[0, ..., :2] = masks[2, ..., :1] = 1
    assert labels_of_regions(masks, BRATS["regions"]).flatten().tolist() == [4, 1, 2, 0]
    assert set(np.unique(source.predict(target.load(target.items[0])))) <= {0, 1, 2, 4}


def change(path: str, values, affine=None) -> None:
    label = nib.load(path)
    array = values(np.asarray(label.dataobj))
    nib.save(nib.Nifti1Image(array, label.affine if affine is None else affine(label.affine)), path)


def test_a_label_stored_with_other_axes_is_turned(target: Target) -> None:
    item = target.items[0]
    before = target.load(item).truth
    nib.save(nib.as_closest_canonical(nib.load(item["label"])), item["label"])
    assert np.array_equal(target.load(item).truth, before) and before.any()


def test_almost_whole_numbers_are_rounded_and_others_refused(target: Target) -> None:
    item = target.items[0]
    before = target.load(item).truth
    change(item["label"], lambda label: label * np.float32(0.9999999))
    assert np.array_equal(target.load(item).truth, before)
    change(item["label"], lambda label: label * np.float32(0.5))
    with pytest.raises(ValueError, match="not whole numbers"):
        target.load(item)
    change(item["label"], lambda label: np.where(label > 0, 255, 0).astype(np.uint8))
    with pytest.raises(ValueError, match=r"undeclared values \[255\], expected some of \[0, 1\]"):
        target.load(item)


def test_a_label_or_prediction_elsewhere_is_refused(target: Target, tmp_path: Path) -> None:
    item = target.items[0]
    case = target.load(item)
    files = PredictionFiles("copy", "x", tmp_path / "predictions")
    (tmp_path / "predictions").mkdir()
    path = tmp_path / "predictions" / f"{case.name}.nii.gz"
    nib.save(nib.as_closest_canonical(nib.load(item["label"])), path)
    assert np.array_equal(files.predict(case), case.truth)

    def move(affine: np.ndarray) -> np.ndarray:
        return affine + np.array([[0, 0, 0, 9.0]] + [[0] * 4] * 3)

    for file in (str(path), item["label"]):
        change(file, lambda label: label, move)
    with pytest.raises(ValueError, match="not on the grid"):
        files.predict(case)
    with pytest.raises(ValueError, match="not on the grid"):
        target.load(item)


def test_patients_trained_on_are_known_with_a_channel_behind_their_name(target: Target, tmp_path: Path) -> None:
    source = PredictionFiles("m", "x", tmp_path, training_patients=["p0_0000", "p1_ct"])
    with pytest.raises(ValueError, match=r"\['p0', 'p1'\]"):
        OutOfDistributionMatrix([source], [target], tmp_path / "out", on_leak="error").check()


def test_every_file_is_checked_before_the_first_window(target: Target, tmp_path: Path, caplog) -> None:
    empty, fraction, *_ = target.items
    change(empty["label"], np.zeros_like)
    change(fraction["label"], lambda label: label * np.float32(0.5))
    predicted: list[str] = []

    class Watched(PredictionFiles):
        def problems(self, target):
            return []

        def predict(self, case, view="image"):
            predicted.append(f"{case.name} after {len(caplog.records)} messages")
            return case.truth

    source = Watched("m", "x", tmp_path)
    message = r"(?s)1 case.s. cannot be scored.*case1.nii.gz holds values that are not whole"
    with pytest.raises(ValueError, match=message):
        OutOfDistributionMatrix([source], [target], tmp_path / "out", strict=True).run()
    assert not predicted
    caplog.clear()
    matrix = OutOfDistributionMatrix([source], [target], tmp_path / "out")
    matrix.run()
    assert len(predicted) == 3 and not predicted[0].endswith("after 0 messages")
    assert "case0.nii.gz: the truth holds background alone" in caplog.text
    assert matrix.failures["case"].tolist() == ["case1"] and "not whole" in matrix.failures["reason"][0]
