"""Rows and columns from folders: real layouts, what a model's description decides, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from swinfuse_components.evaluation.models import PredictionFiles, model_source, model_sources, read_model, unseen
from swinfuse_components.evaluation.targets import read_target
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


def test_brats_needs_a_channel_for_a_model_of_one(swinfuse_data: Path, model: Path) -> None:
    source = model_source(model)
    whole = read_target(swinfuse_data / "BraTS21_like")
    assert (
        "takes 1 channel(s), target BraTS21_like shows 4 of ['flair', 't1ce', 't1', 't2']" in source.problems(whole)[0]
    )
    each = read_target(swinfuse_data / "BraTS21_like", channel="each")
    assert list(each.views) == [f"BraTS21_like [{c}]" for c in ("flair", "t1ce", "t1", "t2")]
    assert source.problems(each) == [] and each.classes is not None and 4 in each.classes.values()


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
