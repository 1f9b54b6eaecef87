"""Data sets that are recognised by their folders: BraTS and SynthRAD."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .modalities import REGISTRY
from .paths import existing_dir, find_volume, subfolders, volume_stem
from .patients import patient_of

BRATS_CHANNELS = ("flair", "t1ce", "t1", "t2")
"""Order of the channels everywhere in this project: FLAIR, T1 with contrast agent, T1, T2 (that of Swin UNETR)."""

BRATS_LABELS = {0: "background", 1: "necrotic tumour core", 2: "peritumoral oedema", 4: "enhancing tumour"}

# each sequence under the names of BraTS 2018 to 2021, of 2023 and later, and of the Decathlon
_SEQUENCES = {"flair": ("flair", "t2f"), "t1ce": ("t1ce", "t1c", "t1gd"), "t1": ("t1", "t1n"), "t2": ("t2", "t2w")}


def sequence_of(path: str | os.PathLike) -> str | None:
    """The MRI sequence that a file name ends in, as in :data:`BRATS_CHANNELS`; None if it does not say."""
    word = re.split(r"[-_]", volume_stem(path))[-1].lower()
    return next((name for name, words in _SEQUENCES.items() if word in words), None)


def find_sequence(folder: Path, name: str) -> Path | None:
    """File or DICOM folder ``<folder>_<name>`` or ``<folder>-<name>``, under any name the sequence has in BraTS."""
    words = _SEQUENCES.get(name.lower(), ()) if name.lower() in _SEQUENCES else (name,)
    stems = [f"{folder.name}{separator}{word}" for word in dict.fromkeys((name, *words)) for separator in "_-"]
    found = (find_volume(folder, stem) or (folder / stem if (folder / stem).is_dir() else None) for stem in stems)
    return next((path for path in found if path), None)


def brats_folders(root: Path, sequences: Sequence[str] = (*BRATS_CHANNELS, "seg")) -> list[Path]:
    """Folders of patients: ``root`` itself, or those one level down, or two (``HGG/``, ``LGG/``)."""

    def is_patient(folder: Path) -> bool:
        return any(find_sequence(folder, name) for name in sequences)

    if is_patient(root):
        return [root]
    groups = [[child] if is_patient(child) else subfolders(child) for child in subfolders(root)]
    return [folder for group in groups for folder in group if is_patient(folder)]


def _is_brats_2023(folder: Path) -> bool:
    return any(find_volume(folder, f"{folder.name}-{word}") for word in ("t2f", "t1c", "t1n", "t2w"))


def brats_datalist(
    dataset_dir: str | os.PathLike,
    *,
    channels: Sequence[str] = BRATS_CHANNELS,
    labelled: bool = True,
    check_files: bool = True,
    patient_pattern: str | None = None,
) -> list[dict]:
    """List the patients of a BraTS folder (2018 to 2021, 2023 and later), in a fixed order.

    Args:
        dataset_dir: the folder that holds the patients' folders.
        channels: the sequences to load and their order; FLAIR, T1ce, T1, T2 by default.
        labelled: whether the label map is required and listed.
        check_files: False lists missing files as if they were there, for :func:`check_datalist` to find.
        patient_pattern: see :func:`~swinfuse_components.data.patient_of`.

    Returns:
        One dictionary a patient: ``image`` (a list of absolute paths in channel order), ``label``, ``modality``
        (``"mr"``), ``patient``.

    Raises:
        FileNotFoundError: if the folder, or any file of a patient, is missing; all the missing files are named at once.
        ValueError: if there is no patient.
    """
    root = existing_dir(dataset_dir, "BraTS21")
    items, missing = [], []
    wanted = [*channels, "seg"] if labelled else list(channels)
    for folder in brats_folders(root):
        files = {name: find_sequence(folder, name) for name in wanted}
        for name in wanted:
            if files[name] is None:
                files[name] = folder / f"{folder.name}_{name}.nii.gz"
                missing.append(str(files[name]))
        images = [str(files[name]) for name in channels]
        item: dict = {"image": images, "modality": "mr", "patient": patient_of(folder, patient_pattern)}
        if labelled:
            item["label"] = str(files["seg"])
            # enhancing tumour is 4 until 2021 and 3 since 2023; 4 then is a class of its own (resection cavity)
            item["allowed_labels"] = [0, 1, 2, 3] if _is_brats_2023(folder) else [0, 1, 2, 3, 4]
        items.append(item)
    if missing and check_files:
        raise FileNotFoundError(f"{len(missing)} file(s) of the BraTS21 layout are missing: {', '.join(missing)}")
    if not items:
        raise ValueError(
            f"no BraTS21 patient under '{root}': expected <id>/<id>_{{{','.join(wanted)}}}.nii.gz, or the names of"
            " BraTS 2023, <id>/<id>-{t2f,t1c,t1n,t2w,seg}.nii.gz"
        )
    return items


def synthrad_datalist(
    dataset_dir: str | os.PathLike,
    *,
    regions: Sequence[str] | str | None = None,
    check_files: bool = True,
    patient_pattern: str | None = None,
) -> list[dict]:
    """List the patients below a SynthRAD folder (2023 or 2025), in a fixed order.

    ``Task1/<region>/<id>/{ct,mr,mask}.nii.gz`` (2025: ``.mha``), any region names; a single task's or region's folder
    does as well. Patients with a cone-beam CT in place of the MRI (``Task2``) are left out. What some patients have
    (``ct``, ``mr``, another modality, ``mask``) all of them must have.

    Args:
        dataset_dir: the folder that holds ``Task1``/``Task2``.
        regions: names of the regions to use, e.g. ``["brain", "pelvis"]``; all by default.
        check_files: False lists missing files as if they were there, for :func:`check_datalist` to find.
        patient_pattern: see :func:`~swinfuse_components.data.patient_of`.

    Returns:
        One dictionary a patient: absolute paths under ``ct``, ``mr``, ``mask`` (those that exist), and ``patient``,
        ``region``.

    Raises:
        FileNotFoundError: if the folder, or a required file, does not exist; all the missing files are named at once.
        ValueError: if no patient is left.
    """
    root = existing_dir(dataset_dir, "SynthRAD")
    wanted = {regions} if isinstance(regions, str) else set(regions or ())
    folders = synthrad_folders(root)
    files = {
        folder: {name: find_volume(folder, name) for name in (*REGISTRY, "mask")}
        for folder in folders
        if (not wanted or folder.parent.name in wanted)
        and (find_volume(folder, "mr") or not find_volume(folder, "cbct"))
    }
    required = [name for name in (*REGISTRY, "mask") if any(found[name] for found in files.values())]
    items, missing = [], []
    for folder, found in files.items():
        missing += [str(folder / f"{name}.nii.gz") for name in required if found[name] is None]
        paths = {name: str(found[name] or folder / f"{name}.nii.gz") for name in required}
        items.append({**paths, "patient": patient_of(folder, patient_pattern), "region": folder.parent.name})
    if missing and check_files:
        raise FileNotFoundError(f"{len(missing)} file(s) of the SynthRAD layout are missing: {', '.join(missing)}")
    if not items:
        seen = sorted({f"{folder.parent.parent.name}/{folder.parent.name}" for folder in folders})
        raise ValueError(
            f"no SynthRAD patient under '{root}' for regions={sorted(wanted) or 'all'}; expected"
            f" Task1/<region>/<id>/{{ct,mr,mask}}.nii.gz, found {seen or 'no such folder'}"
        )
    return items


def synthrad_folders(root: Path, levels: int = 3) -> list[Path]:
    """Folders with ``ct``, ``mr`` or ``cbct``, at most ``levels`` below ``root``."""
    cases = []
    for folder in subfolders(root):
        if any(find_volume(folder, name) for name in ("ct", "mr", "cbct")):
            cases.append(folder)
        elif levels > 1:
            cases += synthrad_folders(folder, levels - 1)
    return cases
