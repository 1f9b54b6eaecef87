"""Series of DICOM images in a folder, and codes of segments."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .paths import is_volume


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


def coded(value: object, where: str) -> list[list[str]]:
    """Category and type of a segment: ``[value, scheme, meaning]`` of the type, or ``{"category": …, "type": …}``."""
    pair = value if isinstance(value, Mapping) else {"type": value}
    codes: list[Any] = [pair.get("category", ["91723000", "SCT", "Anatomical Structure"]), pair.get("type")]
    for code in codes:
        if not isinstance(code, (list, tuple)) or len(code) != 3 or not all(isinstance(c, str) and c for c in code):
            raise ValueError(
                f"{where}: code {value!r}, expected [value, scheme, meaning] such as"
                ' ["78961009", "SCT", "Spleen"], or {"category": […], "type": […]}'
            )
    return [list(code) for code in codes]
