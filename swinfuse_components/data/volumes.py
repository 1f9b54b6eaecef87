"""Volumes as checks see them, header first, voxels only when the header can be believed; series of DICOM images."""

import functools
import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

from .paths import is_volume

MAX_VOXELS = 2**31
"""A header that announces more is not believed (2048 x 1024 x 1024; a whole-body CT has a tenth of it)."""

LARGEST_VALUE = 1e36
"""Differences of larger values than this do not fit into 32-bit floating point."""

_DEFLATE_LIMIT = 1040  # deflate packs at most 1032 bytes into one
_MAX_TRAILING = 2**24  # bytes after the voxels; header extensions and padding are far smaller


class VolumeError(ValueError):
    """A file cannot be used as a volume."""


@dataclass(frozen=True)
class Volume:
    """Header of a volume, and the way to its voxels.

    ``shape`` is as stored, further axes behind the three of space; ``affine`` (4, 4) leads from voxel indices to
    millimetres in RAS; ``oriented`` says whether the file itself tells its orientation; ``load`` reads the voxels;
    ``distances`` are those between the slices of a DICOM series, mm.
    """

    path: str
    shape: tuple[int, ...]
    affine: np.ndarray
    oriented: bool
    load: Callable[[], np.ndarray]
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def read(self) -> np.ndarray:
        """The voxels, scaled as the header says; VolumeError if the file is truncated or damaged."""
        try:
            return self.load()
        except Exception as error:  # nibabel, gzip and zlib raise many kinds; all mean a damaged file
            raise VolumeError(f"voxels cannot be read, truncated or damaged: {_reason(error)}") from error

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _open_nifti(path: str) -> Volume:
    image = nib.load(path)
    shape, dtype = tuple(int(side) for side in image.shape), image.get_data_dtype()
    codes = [int(image.header[name]) for name in ("sform_code", "qform_code") if name in image.header]
    if dtype.kind not in "iufb" or min(shape, default=0) < 1:
        raise ValueError(f"voxels of type {dtype}, shape {shape}; expected real numbers and sides of at least 1")
    announced = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if announced > os.path.getsize(path) * (_DEFLATE_LIMIT if path.lower().endswith(".gz") else 1):
        raise ValueError(f"truncated: its header announces {announced} bytes, it cannot hold them")

    def read() -> np.ndarray:
        if not path.lower().endswith(".gz"):
            return np.asanyarray(image.dataobj)
        with gzip.open(path) as stream:  # to its end, where the checksum stands; nibabel stops after the voxels
            content = stream.read(announced + _MAX_TRAILING)
            if stream.read(1):
                raise ValueError(f"more than {_MAX_TRAILING} bytes follow the voxels")
        return np.asanyarray(type(image).from_bytes(content).dataobj)

    return Volume(path, shape, np.asarray(image.affine, np.float64), any(codes) or not codes, read)


def _open_other(path: str) -> Volume:
    image = LoadImage(image_only=True, dtype=None)(path)
    series = dicom_series(Path(path)) if os.path.isdir(path) else []
    distances = slice_distances(series[0].files) if series else np.zeros(0)
    affine = np.asarray(image.affine, np.float64)
    return Volume(path, tuple(image.shape), affine, True, lambda: np.asarray(image), distances)


def open_volume(path: str) -> Volume:
    """Open a volume without reading its voxels (NIfTI; other formats are read whole by MONAI's readers).

    FileNotFoundError or VolumeError if there is none, it cannot be opened, or its header cannot be true.
    """
    if not os.path.exists(path):
        raise FileNotFoundError("does not exist")
    if os.path.isfile(path) and not os.path.getsize(path):
        raise VolumeError("has 0 bytes")
    try:
        volume = (_open_nifti if path.lower().endswith((".nii", ".nii.gz")) else _open_other)(path)
    except Exception as error:  # the readers raise many kinds on a damaged file; all of them mean the same
        raise VolumeError(f"cannot be opened: {_reason(error)}") from error
    if int(np.prod(volume.shape, dtype=object)) > MAX_VOXELS:
        raise VolumeError(f"shape {volume.shape}: more than {MAX_VOXELS} voxels")
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise VolumeError(f"affine {volume.affine.tolist()} is not finite or not invertible")
    return volume


def too_large(shape: Sequence[int], affine: np.ndarray, spacing: Sequence[float]) -> str | None:
    """Why a volume of this grid cannot be resampled to a spacing in mm (-1: as it is) on this machine, or None."""
    own = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)
    steps = [wanted if wanted > 0 else side for wanted, side in zip(spacing, own)]
    voxels = float(np.prod(np.asarray(shape, np.float64)) * np.prod(own) / np.prod(steps))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**40
    if voxels <= MAX_VOXELS and 8 * voxels <= memory:  # image and result, 4 bytes a voxel each
        return None
    return (
        f"{tuple(shape)} voxels of {own.round(3).tolist()} mm become {voxels:.2g} at a spacing of {list(spacing)} mm, "
        f"{4 * voxels / 1e9:.0f} GB: more than can be held. Is its spacing right, and the setting?"
    )


def grid_difference(first: Volume, second: Volume, tolerance: float = 0.1) -> str | None:
    """How the grids of two volumes differ, or None: the first of shape, orientation, spacing, position.

    No corner may be off by more than ``tolerance`` voxels.
    """
    shape, other = first.shape[:3], second.shape[:3]
    if shape != other:
        return f"shape {other}, expected {shape}"
    corners = np.array(np.meshgrid(*[(0, side) for side in shape])).reshape(3, -1)
    offset = (first.affine - second.affine) @ np.vstack([corners, np.ones(corners.shape[1])])
    millimetres = float(np.linalg.norm(offset[:3], axis=0).max())
    if millimetres <= tolerance * float(first.spacing.min()):
        return None
    codes = ["".join(nib.aff2axcodes(volume.affine)) for volume in (first, second)]
    if codes[0] != codes[1]:
        return f"orientation {codes[1]}, expected {codes[0]}"
    if not np.allclose(first.spacing, second.spacing, rtol=0.01):
        return f"spacing {second.spacing.round(3).tolist()} mm, expected {first.spacing.round(3).tolist()}"
    return f"lies up to {millimetres:.2f} mm away from where it is expected"


class Series(NamedTuple):
    """A DICOM series: UID, number, description, modality (``CT``, ``MR``, ``PT``, …), patient's ID, files in order."""

    uid: str
    number: str
    description: str
    modality: str
    patient: str
    files: list[str]


def dicom_series(folder: Path) -> list[Series]:
    """The series of images in a folder of DICOM files; empty if it holds none."""
    return list(_read_series(folder, folder.stat().st_mtime_ns)) if _holds_dicom(folder) else []


@functools.lru_cache(maxsize=4096)
def _read_series(folder: Path, changed: int) -> tuple[Series, ...]:
    import itk  # only here: its import takes seconds

    names = itk.GDCMSeriesFileNames.New()
    names.GlobalWarningDisplayOff()  # a folder of contours or plans holds no series of images, and that is fine
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")  # as MONAI's reader has it
    names.SetDirectory(str(folder))
    found = []
    for uid in names.GetSeriesUIDs():
        files = list(names.GetFileNames(uid))
        header = _header(files[0])  # the dictionary does not live longer
        tags = header.GetMetaDataDictionary()
        uid, number, text, kind, patient = (
            tags[tag].strip() if tags.HasKey(tag) else ""
            for tag in ("0020|000e", "0020|0011", "0008|103e", "0008|0060", "0010|0020")
        )
        found.append(Series(uid, number, text, kind, patient, files))
    return tuple(found)


def slice_distances(files: Sequence[str]) -> np.ndarray:
    """Distances in mm between neighbouring slices of a series, in order of position; empty for a single file."""
    headers = [_header(file) for file in files]
    if len(headers) < 2:
        return np.zeros(0)
    normal = np.asarray(headers[0].GetDirection(2))
    return np.diff(np.sort([normal @ [header.GetOrigin(axis) for axis in range(3)] for header in headers]))


def _header(file: str) -> Any:
    import itk

    header = itk.GDCMImageIO.New()
    header.SetFileName(file)
    header.ReadImageInformation()
    return header


def _holds_dicom(folder: Path) -> bool:
    """Whether a file in a folder is DICOM: ``DICM`` after a preamble of 128 bytes."""
    files = (f for f in sorted(folder.iterdir()) if f.is_file() and f.name[0] != "." and f.name != "DICOMDIR")
    return any(_is_dicom(file) for file in files if not is_volume(file))


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"
