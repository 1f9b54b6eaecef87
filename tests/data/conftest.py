"""Small folders in the three layouts, made of numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])
SHAPE = (12, 10, 8)


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Save an array as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def ct_volume(seed: int = 0) -> np.ndarray:
    """Air, fat and bone."""
    return np.random.default_rng(seed).integers(-1000, 1500, SHAPE).astype(np.int16)


def mr_volume(seed: int = 0) -> np.ndarray:
    """Arbitrary positive units."""
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def label_volume(seed: int = 0) -> np.ndarray:
    """Classes 0, 1, 2."""
    return np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def msd_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make an MSD task folder of CT volumes."""

    def make(cases: int = 6, **changes: object) -> Path:
        root = tmp_path / "Task99_Made"
        names = [f"case_{number:02d}" for number in range(cases)]
        for number, name in enumerate(names):
            write_volume(root / "imagesTr" / f"{name}.nii.gz", ct_volume(number))
            write_volume(root / "labelsTr" / f"{name}.nii.gz", label_volume(number))
        content = {
            "name": "Made",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "liver", "2": "tumour"},
            "training": [
                {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
            ],
            "test": ["./imagesTs/case_99.nii.gz"],
            **changes,
        }
        (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        return root

    return make


@pytest.fixture
def synthrad_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a SynthRAD folder with two regions, and the challenge's folder of pictures."""

    def make(patients: int = 2) -> Path:
        root = tmp_path / "SynthRAD"
        for region in ("brain", "pelvis"):
            for number in range(patients):
                folder = root / "Task1" / region / f"1{region[0].upper()}A{number:03d}"
                seed = number + 10 * (region == "pelvis")
                write_volume(folder / "ct.nii.gz", ct_volume(seed))
                write_volume(folder / "mr.nii.gz", mr_volume(seed))
                write_volume(folder / "mask.nii.gz", np.ones(SHAPE, np.uint8))
            (root / "Task1" / region / "overview").mkdir()
        return root

    return make


@pytest.fixture
def brats_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a BraTS21 folder."""

    def make(patients: int = 2) -> Path:
        root = tmp_path / "BraTS21"
        for number in range(patients):
            name = f"BraTS2021_{number:05d}"
            for seed, sequence in enumerate(("flair", "t1", "t1ce", "t2")):
                write_volume(root / name / f"{name}_{sequence}.nii.gz", mr_volume(seed + 10 * number))
            write_volume(root / name / f"{name}_seg.nii.gz", label_volume(number) * 2)
        return root

    return make
