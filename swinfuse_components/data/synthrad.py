"""Data lists from SynthRAD's folders: registered CT and MRI of one patient on one grid.

Layout (SynthRAD2023, https://synthrad2023.grand-challenge.org): ``Task1/<region>/<id>/{ct,mr,mask}.nii.gz``, with the
regions ``brain`` and ``pelvis``; any other region name works as well. ``Task2`` holds a cone-beam CT instead of the
MRI.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .paths import existing_dir, find_volume

_FILES = ("ct", "mr", "mask", "cbct")


def _is_case(folder: Path) -> bool:
    return any(find_volume(folder, name) is not None for name in _FILES)


def _subfolders(folder: Path) -> list[Path]:
    # "overview" holds the challenge's pictures
    return sorted(
        p for p in folder.iterdir() if p.is_dir() and p.name != "overview" and not p.name.startswith((".", "_"))
    )


def _case_folders(root: Path, levels: int = 3) -> list[Path]:
    """Folders that hold volumes, at most ``levels`` below ``root`` (a task's or a region's folder does as well)."""
    cases = []
    for folder in _subfolders(root):
        if _is_case(folder):
            cases.append(folder)
        elif levels > 1:
            cases += _case_folders(folder, levels - 1)
    return cases


def synthrad_datalist(
    dataset_dir: str | os.PathLike,
    *,
    tasks: Sequence[str] | str | None = None,
    regions: Sequence[str] | str | None = None,
    require: Sequence[str] = ("ct", "mr", "mask"),
    check_files: bool = True,
) -> list[dict]:
    """List the patients below a SynthRAD folder, in a fixed order.

    Args:
        dataset_dir: the folder that holds ``Task1``/``Task2``; a single task's or region's folder does as well.
        tasks: names of the tasks to use, e.g. ``"Task1"``; all by default.
        regions: names of the regions to use, e.g. ``["brain", "pelvis"]``; all by default.
        require: files every patient must have, out of ``ct``, ``mr``, ``mask``, ``cbct``. Patients that have a
            cone-beam CT in place of a required ``mr`` (Task2) are left out; any other gap is an error.
        check_files: False lists missing files as if they were there, for :func:`check_datalist` to find.

    Returns:
        One dictionary a patient: absolute paths under ``ct``, ``mr``, ``mask`` (those that exist), and ``patient``,
        ``region``.

    Raises:
        FileNotFoundError: if the folder, or a required file, does not exist; all the missing files are named at once.
        ValueError: if no patient is left.
    """
    root = existing_dir(dataset_dir, "SynthRAD")
    wanted_tasks = {tasks} if isinstance(tasks, str) else set(tasks or ())
    wanted_regions = {regions} if isinstance(regions, str) else set(regions or ())
    unknown = set(require) - set(_FILES)
    if unknown:
        raise ValueError(f"require={list(require)}: unknown {sorted(unknown)}, expected some of {list(_FILES)}")

    items, missing, seen = [], [], []
    for folder in _case_folders(root):
        region, task = folder.parent.name, folder.parent.parent.name
        seen.append(f"{task}/{region}")
        if (wanted_tasks and task not in wanted_tasks) or (wanted_regions and region not in wanted_regions):
            continue
        files = {name: find_volume(folder, name) for name in _FILES}
        if files["cbct"] is not None and files["mr"] is None and "mr" in require:
            continue
        for name in require:
            if files[name] is None:
                files[name] = folder / f"{name}.nii.gz"
                missing.append(str(files[name]))
        found = {name: str(path) for name, path in files.items() if path is not None}
        items.append({**found, "patient": folder.name, "region": region})
    if missing and check_files:
        raise FileNotFoundError(f"{len(missing)} file(s) of the SynthRAD layout are missing: {', '.join(missing)}")
    if not items:
        raise ValueError(
            f"no SynthRAD patient under '{root}' for tasks={sorted(wanted_tasks) or 'all'}, regions="
            f"{sorted(wanted_regions) or 'all'} with {list(require)};"
            f" expected Task1/<region>/<id>/{{ct,mr,mask}}.nii.gz, found {sorted(set(seen)) or 'no such folder'}"
        )
    return items


def images_of_pairs(items: Sequence[dict], modalities: Sequence[str] = ("ct", "mr")) -> list[dict]:
    """Turn pairs into single images: ``image``, ``modality``, ``patient``, and ``mask``, ``region`` where known.

    ``modalities=("ct",)`` keeps the CT alone, for pre-training on one modality.

    Raises:
        ValueError: if nothing is left, or a modality is not ``ct`` or ``mr``.
    """
    if not modalities or set(modalities) - {"ct", "mr"}:
        raise ValueError(f"modalities={list(modalities)}: expected 'ct', 'mr' or both")
    images = [
        {
            "image": item[modality],
            "modality": modality,
            **{k: item[k] for k in ("mask", "patient", "region") if k in item},
        }
        for item in items
        for modality in modalities
        if modality in item
    ]
    if not images:
        raise ValueError(f"none of the {len(items)} items has an image of {list(modalities)}")
    return images
