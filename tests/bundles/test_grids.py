"""Label maps come back on the grid of the input, from files, folders and DICOM series."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import numpy as np
import pytest

from ..models import BRATS, read_rows, write_model
from .conftest import write_nifti
from .grids import AFFINES, assert_on_grid_of, write_dicom_series

#: the description of a model of random weights, and the names of its channels in files
MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "finetune_msd": (
        {"modality": "mr", "channels": ["MRI"], "labels": {"0": "background", "1": "first", "2": "second"}},
        ("mri",),
    ),
    "finetune_brats": (BRATS, ("flair", "t1ce", "t1", "t2")),
}


@pytest.mark.parametrize("case", [*sorted(AFFINES), "DICOM"])
@pytest.mark.parametrize("bundle", MODELS)
def test_label_maps_come_back_on_the_grid_of_the_input(
    bundle: str, case: str, segment: Callable[..., Any], tmp_path: Path
) -> None:
    """One file of all channels, folders of NIfTI and of NRRD files, and DICOM series."""
    described, names = MODELS[bundle]
    model = write_model(tmp_path / "model", **described, spacing=[1.5, 1.5, 1.5])
    volumes = np.random.default_rng(1).normal(100, 30, (len(names), 41, 37, 19)).clip(1).astype(np.int16)
    volumes[:, :4] = 0  # around the head
    given, affine = tmp_path / "images" / "P1", AFFINES.get(case, np.eye(4))
    for number, (name, volume) in enumerate(zip(names, volumes, strict=True)):
        file = given / f"P1_{name}"
        if case == "DICOM":
            affine = write_dicom_series(file, volume.T, (1.2, 1.2, 2.5), number + 1)
        elif case != "other orientation":
            write_nifti(file.with_suffix(".nii.gz"), volume, affine)
        if case == "anisotropic":
            itk.imwrite(itk.imread(str(file.with_suffix(".nii.gz"))), str(file.with_suffix(".nrrd")))
            file.with_suffix(".nii.gz").unlink()
    if case == "other orientation":
        given = given.with_suffix(".nii.gz")
        write_nifti(given, np.moveaxis(volumes, 0, -1) if len(names) > 1 else volumes[0], affine)
    elif case == "oblique" and bundle == "finetune_brats":
        given = given.parent  # of several patients
    write_nifti(tmp_path / "reference.nii.gz", volumes[0], affine)
    output = tmp_path / "out"
    segment(bundle, given, model, output, tta_axes=[2] if case == "oblique" else [])
    (written,) = output.glob("*.nii.gz")
    labels = assert_on_grid_of(written, tmp_path / "reference.nii.gz")
    assert labels.any()
    (row,) = read_rows(output / "volumes.csv")
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    classes = {int(value): name for value, name in described["labels"].items()}
    assert set(np.unique(labels)) <= set(classes)
    for value, name in list(classes.items())[1:]:
        assert float(row[f"{name} (ml)"]) == pytest.approx((labels == value).sum() * voxel, abs=1e-3)
