"""Ensembles, and what is measured on a data set before training."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from swinfuse_components.engines.guards import write_record
from swinfuse_components.finetuning import (
    GENERIC_DESCRIPTION,
    common_description,
    fingerprint,
    load_ensemble,
    require_unseen,
)


def test_models_of_one_ensemble_must_agree_and_must_not_have_seen_the_data(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "liver", "2": "spleen", "3": "kidney"}
    base = {**GENERIC_DESCRIPTION, "labels": labels, "histogram": [[0.0, 1.0]], "largest_component": [1, 2]}
    for fold, patients in enumerate((["a", "b"], ["b", "c"])):
        write_record(tmp_path / str(fold) / "model.json", {**base, "training_patients": patients})
        base |= {"histogram": [[0.5, 0.5]], "largest_component": [2, 3]}
    shared = common_description([tmp_path / "0", tmp_path / "1"])
    assert shared["training_patients"] == ["a", "b", "c"]
    assert shared["histogram"] == [[0.25, 0.75]] and shared["largest_component"] == [2]
    items = [{"image": "x", "patient": "c"}, {"image": "y", "patient": "d"}]
    with pytest.raises(ValueError, match="1 of 2 patients .* c"):
        require_unseen(items, shared)
    assert require_unseen(items, shared, allow_seen=True) == items == require_unseen(items, {})
    write_record(tmp_path / "1" / "model.json", {**base, "ct_window": [0, 1]})
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
    with pytest.raises(ValueError, match="bias: file has none"):
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
