"""Data sets that are recognised by their folders: BraTS and SynthRAD."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .modalities import REGISTRY, modality_of_word
from .paths import existing_dir, find_volume, subfolders, volume_stem
from .patients import patient_of

BRATS_CHANNELS = ("flair", "t1ce", "t1", "t2")
"""Order of the channels everywhere in this project: FLAIR, T1 with contrast agent, T1, T2 (that of Swin UNETR)."""

BRATS_LABELS = {0: "background", 1: "necrotic tumour core", 2: "peritumoral oedema", 4: "enhancing tumour"}

# each sequence under the names of BraTS 2018 to 2021, of 2023 and later, and of the Decathlon
_SEQUENCES = {
    "flair": ("flair", "t2f"),
    "t1ce": ("t1ce", "t1c", "t1gd", "t1post"),
    "t1": ("t1", "t1n", "t1w"),
    "t2": ("t2", "t2w"),
}


def channel_of(path: str | os.PathLike) -> str | None:
    """What the end of a file or channel name says: a sequence of MRI (``flair``, ``adc``), or another modality."""
    word = re.split(r"[-_. ]", volume_stem(path))[-1].lower()
    kind = modality_of_word(word)
    named = next((name for name, words in _SEQUENCES.items() if word in words), word if kind == "mr" else kind)
    return None if named in ("mr", "mri") else named


def find_sequence(folder: Path, name: str) -> Path | None:
    """File or DICOM folder ``<folder>_<name>`` or ``<folder>-<name>``, under any name the sequence has in BraTS."""
    words = dict.fromkeys((name, *_SEQUENCES.get(name.lower(), ())))
    stems = [f"{folder.name}{separator}{word}" for word in words for separator in "_-"]
    found = (find_volume(folder, stem) or (folder / stem if (folder / stem).is_dir() else None) for stem in stems)
    return next((path for path in found if path), None)


def sequence_file(folder: Path, name: str) -> str:
    """As :func:`find_sequence`; a missing one keeps the name that it should have, which the check then reports."""
    return str(find_sequence(folder, name) or folder / f"{folder.name}_{name}.nii.gz")


def brats_folders(root: Path, sequences: Sequence[str] = (*BRATS_CHANNELS, "seg")) -> list[Path]:
    """Folders of patients: ``root`` itself, or those one level down, or two (``HGG/``, ``LGG/``)."""

    def is_patient(folder: Path) -> bool:
        return any(find_sequence(folder, name) for name in sequences)

    if is_patient(root):
        return [root]
    groups = [[child] if is_patient(child) else subfolders(child) for child in subfolders(root)]
    return [folder for group in groups for folder in group if is_patient(folder)]


def brats_datalist(dataset_dir: str | os.PathLike, *, patient_pattern: str | None = None) -> list[dict]:
    """List the patients of a BraTS folder (2018 to 2021, 2023 and later), in a fixed order; none is an error.

    Items have ``image`` (absolute paths in the order of :data:`BRATS_CHANNELS`), ``label``, ``allowed_labels``,
    ``modality``, ``patient``. Missing files are listed too.
    """
    root = existing_dir(dataset_dir, "BraTS21")
    items = []
    for folder in brats_folders(root):
        # enhancing tumour is 4 until 2021 and 3 since 2023; 4 then is a class of its own (resection cavity)
        is_2023 = any(find_volume(folder, f"{folder.name}-{word}") for word in ("t2f", "t1c", "t1n", "t2w"))
        items.append(
            {
                "modality": "mr",
                "patient": patient_of(folder, patient_pattern),
                "image": [sequence_file(folder, name) for name in BRATS_CHANNELS],
                "label": sequence_file(folder, "seg"),
                "allowed_labels": [0, 1, 2, 3] if is_2023 else [0, 1, 2, 3, 4],
            }
        )
    if not items:
        raise ValueError(
            f"no BraTS21 patient under '{root}': expected <id>/<id>_{{{','.join(BRATS_CHANNELS)},seg}}.nii.gz, or the"
            " names of BraTS 2023, <id>/<id>-{t2f,t1c,t1n,t2w,seg}.nii.gz"
        )
    return items


def synthrad_datalist(
    dataset_dir: str | os.PathLike, *, regions: Sequence[str] | str | None = None, patient_pattern: str | None = None
) -> list[dict]:
    """List the patients below a SynthRAD folder (2023 or 2025), in a fixed order.

    ``Task1/<region>/<id>/{ct,mr,mask}.nii.gz`` (2025: ``.mha``), any region names; a single task's or region's folder
    does as well. Patients with a cone-beam CT in place of the MRI (``Task2``) are left out.

    Items have absolute paths under ``ct``, ``mr`` or another modality, and ``mask``; ``patient``, ``region``. What some
    patients have is listed for all, gaps too. No patient at all is an error.
    """
    root = existing_dir(dataset_dir, "SynthRAD")
    wanted = {regions} if isinstance(regions, str) else set(regions or ())
    folders = [
        folder
        for folder in synthrad_folders(root)
        if (not wanted or folder.parent.name in wanted)
        and (find_volume(folder, "mr") or not find_volume(folder, "cbct"))
    ]
    names = [name for name in (*REGISTRY, "mask") if any(find_volume(folder, name) for folder in folders)]
    if not names:
        seen = sorted({f"{folder.parent.parent.name}/{folder.parent.name}" for folder in synthrad_folders(root)})
        raise ValueError(
            f"no SynthRAD patient under '{root}' for regions={sorted(wanted) or 'all'}; expected"
            f" Task1/<region>/<id>/{{ct,mr,mask}}.nii.gz, found {seen or 'no such folder'}"
        )
    return [
        {
            **{name: str(find_volume(folder, name) or folder / f"{name}.nii.gz") for name in names},
            "patient": patient_of(folder, patient_pattern),
            "region": folder.parent.name,
        }
        for folder in folders
    ]


def synthrad_folders(root: Path, levels: int = 3) -> list[Path]:
    """Folders with ``ct``, ``mr`` or ``cbct``, at most ``levels`` below ``root``."""
    cases = []
    for folder in subfolders(root):
        if any(find_volume(folder, name) for name in ("ct", "mr", "cbct")):
            cases.append(folder)
        elif levels > 1:
            cases += synthrad_folders(folder, levels - 1)
    return cases
