"""Who a patient is: one rule for splits, leak checks and ``exclude_patients``."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from .modalities import modality_of_word, path_keys
from .paths import volume_stem

# file names that say what a file is, not whose
_GENERIC = {"image", "imaging", "images", "img", "volume", "volumes", "scan", "data", "anat", "dicom", "series", "raw"}
_GENERIC |= {"imagestr", "imagests", "training", "validation", "test", "train", "val", "cbct", "nifti", "mask", "masks"}
_OF_NO_PATIENT = {"image", "img", "imaging", "volume", "scan"}  # as in ct_train_1001_image
_MAX_CHANNELS = 8


def patient_of(path: str | os.PathLike, pattern: str | None = None) -> str:
    """Patient that a file name, or the name of a patient or case, stands for.

    Without ``pattern``: BIDS names stand for their subject (``sub-01_ses-2_T1w``: ``sub-01``), names of BraTS 2023 and
    later for the patient without the number of the visit (``BraTS-GLI-00005-100-t1c``: ``BraTS-GLI-00005``); elsewhere
    the suffix goes, and a last part that is a channel (``_0000``, ``_ct``, ``-t1n``) or ``_image``.

    ``pattern`` is a regular expression searched in ``path`` without its suffix; its first group, or the whole match, is
    the patient.
    ValueError if the pattern is no regular expression or does not match.
    """
    stem = volume_stem(path)
    if pattern is not None:
        whole = os.path.join(os.path.dirname(path), stem)
        try:
            match = re.search(pattern, stem) or re.search(pattern, whole)
        except re.error as error:
            raise ValueError(f"patient_pattern {pattern!r} is no regular expression: {error}") from error
        if match is None:
            raise ValueError(f"patient_pattern {pattern!r} does not match '{whole}'")
        return match.group(1) if match.groups() else match.group(0)
    if match := re.match(r"(sub-[A-Za-z0-9]+)(_|$)", stem) or re.match(r"(BraTS-[A-Za-z]+-\d{5})-\d{3}", stem):
        return match.group(1)
    base, _, last = re.sub(r"[-. ]", "_", re.sub(r"_0000$", "", stem)).rpartition("_")
    is_suffix = modality_of_word(last) or last.lower() in _OF_NO_PATIENT
    return stem[: len(base)] if base and is_suffix else re.sub(r"_0000$", "", stem)


def patients_of_files(
    paths: Sequence[str | os.PathLike], pattern: str | None = None, *, channels: bool = True
) -> list[str]:
    """Patient of each file of a folder, or of each case of a data list (``channels=False``).

    As :func:`patient_of`; a folder's name stands for the patient where the file's does not: ``case_7/imaging.nii.gz``
    and any name that comes in several folders, unless these are folders of modalities (``ct/p1.nii.gz``,
    ``mr/p1.nii.gz``). ``p1_0000`` and ``p1_0001`` are two channels of ``p1``.
    """
    if pattern is not None:
        return [patient_of(path, pattern) for path in paths]
    files = [Path(path) for path in paths]
    numbers: dict[str, set[int]] = defaultdict(set)
    folders: dict[str, set[Path]] = defaultdict(set)
    for file in files:
        base, number = _channel_number(file)
        numbers[base].add(number)
        if not _is_generic(file.parent.name):
            folders[patient_of(file)].add(file.parent)
    repeated = {name for name, parents in folders.items() if len(parents) > 1}
    homes = {parent for name in repeated for parent in folders[name]}
    names = []
    for file in files:
        name = patient_of(file)
        base, number = _channel_number(file)
        stack = numbers[base]
        if channels and number >= 0 and stack == set(range(len(stack))) and len(stack) <= _MAX_CHANNELS:
            name = patient_of(base)
        parents = [parent.name for parent in file.parents if parent.name and not _is_generic(parent.name)]
        if parents and (_is_generic(name) or name in repeated and len(homes) >= len(repeated)):
            name = patient_of(parents[0])
        elif parents and name in repeated:  # many names in few folders, e.g. of sites
            name = f"{parents[0]}/{name}"
        names.append(name)
    return names


def _channel_number(file: Path) -> tuple[str, int]:
    """Path without suffix and channel number, and the number: ``a/p1_0002.nii.gz`` gives ``a/p1`` and 2."""
    stem = volume_stem(file)
    match = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (str(file.with_name(match[1])), int(match[2])) if match else (str(file.with_name(stem)), -1)


def _is_generic(name: str) -> bool:
    words = re.split(r"[-_ .]", name.lower())
    return all(word in _GENERIC or modality_of_word(word) or word.isdigit() and len(word) < 2 for word in words)


def with_patients(items: Sequence[Mapping], root: str | os.PathLike, pattern: str | None) -> list[dict[str, Any]]:
    """Copies of a data list's items with ``patient``: their own, or that of their first file below ``root``."""
    firsts = [ensure_tuple(item[path_keys(item)[0]])[0] for item in items]
    names = patients_of_files([os.path.relpath(first, root) for first in firsts], pattern, channels=False)
    return [{**item, "patient": str(item.get("patient") or name)} for item, name in zip(items, names)]


def same_patients(names: Iterable[str]) -> set[str]:
    """Names of patients as :func:`patient_of` writes them, for comparing lists of different origin."""
    return {patient_of(str(name)) for name in names}


def patients_record(items: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """A run's ``patients.json``, ``{"training": [...]}``: later tests have to leave these patients out."""
    return {"training": sorted({str(item["patient"]) for item in items})}
