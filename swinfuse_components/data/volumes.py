"""Volumes as the checks see them: the header first, the voxels only when the header can be believed."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

MAX_VOXELS = 2**31
"""A header that announces more is not believed (2048 x 1024 x 1024; a whole-body CT has a tenth of it)."""

_MAX_TRAILING = 2**24  # bytes; header extensions and padding are far smaller
_DEFLATE_LIMIT = 1040  # deflate packs at most 1032 bytes into one


class VolumeError(ValueError):
    """A file cannot be used as a volume; ``kind`` says why, as a key of the table of findings."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True)
class Volume:
    """Header of a volume, and the way to its voxels.

    Attributes:
        shape: spatial shape and, where there are any, further axes, as stored.
        affine: (4, 4), voxel indices to millimetres in RAS.
        oriented: whether the file itself says its orientation.
        read: returns the voxels, scaled as the header says.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    oriented: bool
    read: Callable[[], np.ndarray]

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size in mm, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def _open_nifti(path: str) -> Volume:
    try:
        image = nib.load(path)
        shape = tuple(int(side) for side in image.shape)
        dtype = image.get_data_dtype()
        affine = np.asarray(image.affine, dtype=np.float64)
        codes = [int(image.header[name]) for name in ("sform_code", "qform_code") if name in image.header]
    except Exception as error:  # nibabel raises many kinds on a damaged header, and every one of them means the same
        raise VolumeError("unreadable", f"no valid NIfTI header: {_reason(error)}") from error
    if dtype.kind not in "iufb":
        raise VolumeError("bad_header", f"voxels of type {dtype}, expected real numbers")
    announced = int(np.prod([max(side, 1) for side in shape], dtype=object)) * dtype.itemsize
    stored = os.path.getsize(path) * (_DEFLATE_LIMIT if path.endswith(".gz") else 1)
    if min(shape, default=0) < 1:
        raise VolumeError("bad_header", f"shape {shape}, expected three sides of at least 1")
    if announced > stored:
        raise VolumeError("unreadable", f"truncated: its header announces {announced} bytes, it cannot hold them")

    def read() -> np.ndarray:
        if not path.endswith(".gz"):
            return np.asanyarray(image.dataobj)
        with gzip.open(path) as stream:
            values = np.asanyarray(type(image).from_stream(stream).dataobj)
            # the checksum stands at the end of the stream, and nibabel never reads that far
            while stream.read(2**16):
                if stream.tell() > announced + _MAX_TRAILING:
                    raise ValueError(f"more than {_MAX_TRAILING} bytes follow the voxels")
        return values

    return Volume(shape, affine, any(codes) or not codes, read)


def _open_other(path: str) -> Volume:
    try:
        image = LoadImage(image_only=True, dtype=None)(path)
        affine = np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # whatever a reader raises, the file is of no use
        raise VolumeError("unreadable", f"cannot be opened: {_reason(error)}") from error
    return Volume(tuple(image.shape), affine, True, lambda: np.asarray(image))


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_volume(path: str) -> Volume:
    """Open a volume without reading its voxels (NIfTI; other formats are read whole by MONAI's readers).

    Raises:
        VolumeError: if there is no such file, it is empty, it cannot be opened, or its header cannot be true.
    """
    if not os.path.exists(path):
        raise VolumeError("missing_file", "does not exist")
    if os.path.isfile(path):
        try:
            with open(path, "rb") as stream:
                if not stream.read(1):
                    raise VolumeError("empty_file", "has 0 bytes")
        except OSError as error:
            raise VolumeError("unreadable", f"cannot be opened: {error.strerror}") from error
    volume = _open_nifti(path) if path.endswith((".nii", ".nii.gz")) else _open_other(path)
    if int(np.prod(volume.shape, dtype=object)) > MAX_VOXELS:
        raise VolumeError("too_large", f"shape {volume.shape}: more than {MAX_VOXELS} voxels")
    affine = volume.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError("bad_header", f"affine {affine.round(4).tolist()} is not finite or not invertible")
    return volume


def read_voxels(volume: Volume) -> np.ndarray:
    """The voxels of an opened volume.

    Raises:
        VolumeError: if they cannot be read: a truncated or damaged file.
    """
    try:
        return volume.read()
    except (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile, MemoryError, OverflowError) as error:
        raise VolumeError("unreadable", f"voxels cannot be read, truncated or damaged: {_reason(error)}") from error


def grid_difference(first: Volume, second: Volume, tolerance: float = 0.1) -> tuple[str, str] | None:
    """How the grids of two volumes differ, as kind and message, or None.

    Shapes must be equal, and no corner may be off by more than ``tolerance`` voxels. The difference is named by what
    differs first: shape, orientation, spacing, affine.
    """
    shape, other = first.shape[:3], second.shape[:3]
    if shape != other:
        return "grid_shape", f"shape {other}, expected {shape}"
    corners = np.array(np.meshgrid(*[(0, side) for side in shape])).reshape(3, -1)
    offset = (first.affine - second.affine) @ np.vstack([corners, np.ones(corners.shape[1])])
    millimetres = float(np.linalg.norm(offset[:3], axis=0).max())
    if millimetres <= tolerance * float(first.spacing.min()):
        return None
    codes = ["".join(nib.aff2axcodes(volume.affine)) for volume in (first, second)]
    if codes[0] != codes[1]:
        return "grid_orientation", f"orientation {codes[1]}, expected {codes[0]}"
    if not np.allclose(first.spacing, second.spacing, rtol=0.01):
        return (
            "grid_spacing",
            f"spacing {second.spacing.round(3).tolist()} mm, expected {first.spacing.round(3).tolist()}",
        )
    return "grid_affine", f"lies up to {millimetres:.2f} mm away from where it is expected"
