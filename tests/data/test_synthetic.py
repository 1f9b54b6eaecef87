"""Random shapes in two appearances, and data lists that mix them with patients."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from swinfuse_components.data import pretraining_items, sampling_weights, synthetic_volumes, two_images
from swinfuse_components.data.synthetic import random_appearance, random_labels


def test_labels_are_many_shapes_and_appearances_know_nothing_of_each_other() -> None:
    shares, correlations = [], []
    for seed in range(6):
        rng = np.random.RandomState(seed)
        labels = random_labels(40, rng)
        assert len(np.unique(labels)) > 8 and (labels == 0).any()
        images = [random_appearance(labels, rng) for _ in range(2)]
        assert all(image.shape == labels.shape and image.min() == 0 and image.max() == 1 for image in images)
        means = [np.array([image[labels == v].mean() for v in np.unique(labels)]) for image in images]
        size = np.array([(labels == v).sum() for v in np.unique(labels)])
        for image, mean in zip(images, means):  # the share of the variance that lies between the shapes
            shares.append(np.average((mean - image.mean()) ** 2, weights=size) / image.var())
        correlations.append(np.corrcoef(*means)[0, 1])
    assert np.mean(shares) > 0.4
    assert abs(np.mean(correlations)) < 0.5


def test_volumes_are_written_once_and_the_same_for_a_seed(tmp_path: Path) -> None:
    folder = Path(synthetic_volumes(tmp_path / "a", 2, size=32, spacing=(2, 2, 2), ct_window=(-100, 300)))
    files = sorted(folder.rglob("*.nii.gz"))
    assert len(files) == 6
    ct = nib.load(folder / "Task1/synthetic/synthetic_00000/ct.nii.gz")
    assert ct.header.get_zooms() == (2, 2, 2) and ct.get_fdata().min() == -100 and ct.get_fdata().max() == 300
    before = [file.stat().st_mtime_ns for file in files]
    synthetic_volumes(folder, 2, size=32)
    assert before == [file.stat().st_mtime_ns for file in files]
    again = Path(synthetic_volumes(tmp_path / "b", 1, size=32, seed=1))
    name = "Task1/synthetic/synthetic_00001/mr.nii.gz"
    np.testing.assert_array_equal(nib.load(again / name).get_fdata(), nib.load(folder / name).get_fdata())


def test_mixed_with_patients_in_any_ratio(tmp_path: Path, synthrad_folder: Callable, msd_folder: Callable) -> None:
    sources = {
        str(synthrad_folder(2)): 1,
        str(msd_folder(cases=3)): 2,
        synthetic_volumes(tmp_path / "s", 5, size=32): 3,
    }
    items = two_images(pretraining_items([{"path": path, "weight": weight} for path, weight in sources.items()]))
    assert [item["modality"] for item in items].count(["ct", "mr"]) == 4 + 5  # two regions of two patients
    weights = np.array(sampling_weights(items))
    for path, weight in sources.items():
        chosen = [item["source"] == path for item in items]
        assert weights[chosen].sum() == pytest.approx(weight / 6)
    single = next(item for item in items if item["modality"] != ["ct", "mr"])
    assert single["first"] == single["second"] and len(set(single["modality"])) == 1
