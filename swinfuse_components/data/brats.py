"""Data lists from BraTS21's folders: four registered MRI sequences of a patient, and a label map.

Layout (https://www.synapse.org/brats2021): ``<id>/<id>_{flair,t1,t1ce,t2,seg}.nii.gz``. Label values are 0 background,
1 necrotic tumour core, 2 peritumoral oedema, 4 enhancing tumour.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from .paths import existing_dir, find_volume

BRATS_CHANNELS = ("flair", "t1ce", "t1", "t2")
"""Order of the channels everywhere in this project: FLAIR, T1 with contrast agent, T1, T2 (that of Swin UNETR)."""

BRATS_LABELS = {0: "background", 1: "necrotic tumour core", 2: "peritumoral oedema", 4: "enhancing tumour"}


def brats_datalist(
    dataset_dir: str | os.PathLike,
    *,
    channels: Sequence[str] = BRATS_CHANNELS,
    labelled: bool = True,
    check_files: bool = True,
) -> list[dict]:
    """List the patients of a BraTS21 folder, in a fixed order.

    Args:
        dataset_dir: the folder that holds the patients' folders.
        channels: the sequences to load and their order; FLAIR, T1ce, T1, T2 by default.
        labelled: whether the label map is required and listed.
        check_files: False lists missing files as if they were there, for :func:`check_datalist` to find.

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
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))):
        if not any(folder.glob(f"{folder.name}_*.nii*")):
            continue  # not a patient's folder
        files = {name: find_volume(folder, f"{folder.name}_{name}") for name in wanted}
        for name in wanted:
            if files[name] is None:
                files[name] = folder / f"{folder.name}_{name}.nii.gz"
                missing.append(str(files[name]))
        item: dict = {"image": [str(files[name]) for name in channels], "modality": "mr", "patient": folder.name}
        if labelled:
            item["label"] = str(files["seg"])
        items.append(item)
    if missing and check_files:
        raise FileNotFoundError(f"{len(missing)} file(s) of the BraTS21 layout are missing: {', '.join(missing)}")
    if not items:
        raise ValueError(f"no BraTS21 patient under '{root}': expected <id>/<id>_{{{','.join(wanted)}}}.nii.gz")
    return items
