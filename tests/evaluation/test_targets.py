"""Labels and predictions are compared on the image's grid, or refused; patients are known under any of their names."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from swinfuse_components.evaluation.matrix import OutOfDistributionMatrix
from swinfuse_components.evaluation.models import PredictionFiles
from swinfuse_components.evaluation.targets import Target, read_target


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


def test_pet_and_brats_are_targets(swinfuse_data) -> None:
    pet = read_target(swinfuse_data / "MSD_like" / "Task53_SarcomaPET", limit=1)
    assert (pet.modality, pet.load(pet.items[0]).modality) == ("pet", "pet")
    assert read_target(swinfuse_data / "BraTS21_like", channel="t2").views == {"BraTS21_like [t2]": 3}


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
