"""Label maps as DICOM SEG on the series they were computed from, written by highdicom (extra ``dicom``)."""

import logging
import os
import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import optional_import

from ..engines.files import atomic_write
from .saving import OutputNames
from .tasks import coded
from .volumes import dicom_series

logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells of every module that it copies

_ONE_AT_A_TIME = threading.Lock()  # the threads of a check import and call highdicom
_TYPE_2 = "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime".split()
_TYPE_2 += ["ReferringPhysicianName"]
_ABNORMAL = {  # the first that fits: a peritumoral oedema is an oedema
    "Edema": "o?edema",
    "Necrosis": "necro",
    "Cyst": "cyst",
    "Lesion": "lesion|infarct",
    "Neoplasm": "tumou?r|cancer|neoplas|carcinoma|sarcoma|metasta",
}


def default_code(name: str) -> list[list[str]]:
    """SNOMED CT category and type for the name of a class; "Tissue" where nothing fits."""
    codes, _ = optional_import("pydicom.sr.codedict", name="codes")
    known = {word.lower(): word for word in dir(codes.SCT)}
    kind = next((kind for kind, words in _ABNORMAL.items() if re.search(words, name.lower())), None)
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]{2,}", name)]
    organ = "".join(word for word in words if word not in ("left", "right"))
    found = next((word for word in (organ, organ.removesuffix("s"), f"{organ}gland") if word in known), None)
    if kind:
        chosen = codes.SCT.MorphologicallyAbnormalStructure, getattr(codes.SCT, kind)
    elif found:
        chosen = codes.SCT.AnatomicalStructure, getattr(codes.SCT, known[found])
    else:
        chosen = codes.SCT.Tissue, codes.SCT.Tissue
    return [[code.value, code.scheme_designator, code.meaning] for code in chosen]


def read_slices(series: str | os.PathLike) -> list[Any]:
    """Headers of a DICOM series (pydicom), in the order of their positions along the slices' normal.

    ValueError if it is no folder of one series whose slices have a frame of reference and positions of their own.
    """
    pydicom, _ = optional_import("pydicom")
    found = dicom_series(Path(series)) if os.path.isdir(series) else []
    if len(found) != 1:
        raise ValueError(f"'{series}' is no DICOM series: 'dicom_seg' needs one, write other images as volumes")
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in found[0].files]
    needed = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = sorted({name for name in needed for header in headers if not header.get(name)})
    if missing:
        raise ValueError(f"'{series}': slices without {', '.join(missing)}, which a DICOM SEG refers to")
    for name in ("FrameOfReferenceUID", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        if len({str(header.get(name)) for header in headers}) > 1:
            raise ValueError(f"'{series}': its slices differ in {name}, expected one stack")
    axes = np.asarray(headers[0].ImageOrientationPatient, np.float64).reshape(2, 3)
    places = [float(np.cross(*axes) @ np.asarray(h.ImagePositionPatient, np.float64)) for h in headers]
    if len(set(places)) < len(places):
        raise ValueError(f"'{series}': several slices lie at one position, expected one stack")
    for header in headers:
        for name in _TYPE_2:  # may be empty, but highdicom wants them to be there; anonymised files often lack them
            if name not in header:
                setattr(header, name, None)
    return [headers[place] for place in np.argsort(places)]


def check_source(series: str) -> None:
    """Check before the first window that a DICOM SEG can be written: highdicom, a series to refer to."""
    with _ONE_AT_A_TIME:
        if not optional_import("highdicom")[1]:
            how = "pip install 'swinfuse-components[dicom]'"
            raise ModuleNotFoundError(f"output_format 'dicom_seg' needs highdicom: {how}")
        slices = read_slices(series)
        blank = np.zeros((1, slices[0].Rows, slices[0].Columns), np.uint8)
        _segmentation(slices[:1], blank, {1: "trial"}, {}, "trial", series)


def _segmentation(
    slices: list[Any], values: np.ndarray, labels: Mapping[int, str], codes: Mapping[Any, Any], name: str, source: str
) -> Any:
    """``highdicom.seg.Segmentation`` of values (slices, rows, columns), which are keys of ``labels``."""
    hd, _ = optional_import("highdicom")
    known, _ = optional_import("pydicom.sr.codedict", name="codes")
    software = f"MONAI {monai.__version__}"
    algorithm = hd.AlgorithmIdentificationSequence("SwinFUSE", known.DCM.ArtificialIntelligence, name[:64])
    segments = []
    numbers = np.zeros(values.shape, np.uint8)
    for number, (value, text) in enumerate(labels.items(), start=1):
        numbers[values == value] = number
        code = codes.get(str(value), codes.get(text))
        category, kind = coded(code, f"label {value}") if code else default_code(text)
        segment = hd.seg.SegmentDescription(
            number, text[:64], hd.sr.CodedConcept(*category), hd.sr.CodedConcept(*kind), "AUTOMATIC", algorithm
        )
        for side in ("Left", "Right"):
            if side.lower() in text.lower() and not code:
                modifier = hd.sr.CodedConcept.from_code(getattr(known.SCT, side))
                segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
        segments.append(segment)
    try:
        result = hd.seg.Segmentation(
            slices,
            numbers,
            hd.seg.SegmentationTypeValues.BINARY,
            segments,
            series_instance_uid=hd.UID(),
            series_number=int(slices[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="SwinFUSE for MONAI",
            manufacturer_model_name=name[:64],
            software_versions=software,
            device_serial_number="0",
            omit_empty_frames=bool(numbers.any()),
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{source}': no DICOM SEG can refer to this series: {error}") from error
    result.SeriesDescription = f"Segmentation, {name}"[:64]
    return result


def slices_of(label_map: np.ndarray, affine: np.ndarray, slices: Sequence[Any], source: str) -> np.ndarray:
    """A label map (X, Y, Z) on the grid of a series as (slices, rows, columns), in the order of ``slices``.

    ``affine`` (4, 4) leads from voxels to millimetres, right-anterior-superior.
    ValueError if the grids differ: the corner or a step by more than a tenth of a voxel.
    """
    to_patient = np.diag([-1.0, -1, 1, 1]) @ np.asarray(affine, np.float64)  # DICOM: left-posterior-superior
    first = slices[0]
    axes = np.asarray(first.ImageOrientationPatient, np.float64).reshape(2, 3)
    if np.cross(*axes) @ to_patient[:3, 2] < 0:  # the volume counts its slices the other way round
        return slices_of(label_map, affine, slices[::-1], source)[::-1]
    steps = axes.T * np.asarray(first.PixelSpacing, np.float64)[::-1]  # PixelSpacing: between rows, between columns
    offset = np.linalg.inv(to_patient) @ [*np.asarray(first.ImagePositionPatient, np.float64), 1]
    sides = (first.Columns, first.Rows, len(slices))
    drift = np.abs(to_patient[:3, :2] - steps).max() * max(sides[:2])
    if label_map.shape != sides or np.abs(offset[:3]).max() > 0.1 or drift > 0.1 * steps.max():
        raise ValueError(
            f"'{source}': the label map of shape {label_map.shape} does not lie on the grid of the series {sides}"
        )
    return np.ascontiguousarray(label_map.transpose(2, 1, 0))


class SaveDicomSegmentationd(MapTransform):
    """Save a label map as DICOM SEG (one binary segment a class) that refers to the slices it was computed from.

    Args:
        keys: of the label maps, each a MetaTensor (1, X, Y, Z) on the grid of the series, as ``Invertd`` leaves it.
        names: knows the name of the output.
        output_dir, output_postfix: where ``<name>_<output_postfix>.dcm`` goes.
        labels: ``{value: name}``; background (0) is left out.
        codes: for some labels, by value or name, what :func:`coded` reads; for others a code is found by the name.
        task: name of what is segmented, for the description.

    ValueError if the image was no DICOM series, or the label map lies on another grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: OutputNames,
        output_dir: str,
        labels: Mapping[Any, str],
        *,
        codes: Mapping[Any, Any] | None = None,
        task: str = "SwinFUSE",
        output_postfix: str = "seg",
    ) -> None:
        super().__init__(keys)
        self.names, self.output_dir, self.task, self.output_postfix = names, Path(output_dir), task, output_postfix
        self.labels = {int(value): str(name) for value, name in labels.items() if int(value) != 0}
        self.codes = {str(key): value for key, value in (codes or {}).items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            label_map: MetaTensor = item[key]
            source = str(label_map.meta["filename_or_obj"])
            slices = read_slices(source)
            values = slices_of(label_map[0].cpu().numpy(), label_map.affine.cpu().numpy(), slices, source)
            result = _segmentation(slices, values, self.labels, self.codes, self.task, source)
            name = self.names.names.get(source, Path(source).name)
            with atomic_write(self.output_dir / f"{name}_{self.output_postfix}.dcm", "wb") as file:
                result.save_as(file)
        return item
