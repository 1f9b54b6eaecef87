"""Volumes on grids as scanners leave them, and whether a segmentation came back on the same one."""

from pathlib import Path

import itk
import nibabel
import numpy as np


def oblique() -> np.ndarray:
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ tilt @ np.diag([0.9, 1.1, 1.7])
    affine[:3, 3] = [-31.5, 12.25, 7.75]
    return affine


AFFINES = {
    "oblique": oblique(),
    "other orientation": np.array([[0, 0, -1.2, 40], [-1.1, 0, 0, 30], [0, 1.0, 0, -20], [0, 0, 0, 1.0]]),
    "anisotropic": np.diag([0.7, 0.8, 4.0, 1.0]),
}


def assert_on_grid_of(segmentation: Path, image: Path) -> np.ndarray:
    found, expected = nibabel.load(segmentation), nibabel.load(image)
    assert found.shape == expected.shape[:3]
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    return np.asarray(found.dataobj)


def write_dicom_series(
    folder: Path, array: np.ndarray, spacing: tuple[float, float, float], number: int = 1, **tags: str
) -> np.ndarray:
    """One file a slice; ``array`` is (Z, Y, X), ``tags`` replace others. The affine in NIfTI's axes."""
    folder.mkdir(parents=True, exist_ok=True)
    root = tags.get("0020|000e", f"1.2.826.0.1.3680043.2.1125.{number}")
    for index, plane in enumerate(array):
        position = (-20.0, -30.0, 15.0 + index * spacing[2])
        image = itk.image_from_array(plane[None])
        image.SetSpacing(spacing)
        image.SetOrigin(position)
        for tag, value in {
            "0008|0018": f"{root}.3.{index + 1}",
            "0008|0060": "MR",
            "0020|000d": f"{root}.1",
            "0020|000e": f"{root}.2",
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            **tags,
        }.items():
            image[tag] = value
        dicom = itk.GDCMImageIO.New()
        dicom.SetKeepOriginalUID(True)
        itk.imwrite(image, str(folder / f"{number}_{index}.dcm"), imageio=dicom)
    # DICOM counts towards left and posterior, NIfTI towards right and anterior
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [20.0, 30.0, 15.0]
    return affine
