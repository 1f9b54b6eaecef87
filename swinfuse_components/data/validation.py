"""Check whole data sets, in any of the layouts, without a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .brats import BRATS_CHANNELS, BRATS_LABELS, brats_datalist
from .findings import FATAL, Finding
from .integrity import find_problems
from .msd import msd_datalist, read_msd_task
from .paths import existing_dir
from .synthrad import synthrad_datalist


def _layout_of(folder: Path) -> str | None:
    if (folder / "dataset.json").is_file():
        return "msd"
    if any(child.is_dir() and any(child.glob(f"{child.name}_*.nii*")) for child in folder.iterdir()):
        return "brats"
    names = ("ct", "mr")
    if any(path for depth in ("*", "*/*", "*/*/*") for name in names for path in folder.glob(f"{depth}/{name}.nii*")):
        return "synthrad"
    return None


def find_datasets(dataset_dir: str | os.PathLike) -> list[tuple[str, str]]:
    """(layout, folder) of the data set in ``dataset_dir``, or of those one or two levels below.

    Raises:
        ValueError: if there is none in any of the layouts.
    """
    root = existing_dir(dataset_dir)
    layout = _layout_of(root)
    if layout:
        return [(layout, str(root))]
    children = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(layout, str(child)) for child in children if (layout := _layout_of(child))]
    done = {folder for _, folder in found}
    for child in children:
        if str(child) not in done:
            inner = sorted(path for path in child.iterdir() if path.is_dir())
            found += [(layout, str(path)) for path in inner if (layout := _layout_of(path))]
    if not found:
        raise ValueError(
            f"'{root}' holds no data set: expected dataset.json, Task1/<region>/<id>/{{ct,mr,mask}}.nii.gz or"
            " <id>/<id>_{flair,t1,t1ce,t2,seg}.nii.gz (BraTS21)"
        )
    return found


def validate_dataset(dataset_dir: str | os.PathLike, layout: str, **options: object) -> tuple[int, list[Finding]]:
    """Number of items and all the findings of one data set; ``options`` as of :func:`find_problems`."""
    if layout == "msd":
        task = read_msd_task(dataset_dir)
        items = msd_datalist(dataset_dir)
        facts: dict = {"in_channels": task.in_channels, "labels": task.labels}
    elif layout == "brats":
        items = brats_datalist(dataset_dir, check_files=False)
        facts = {"in_channels": len(BRATS_CHANNELS), "labels": BRATS_LABELS}
    elif layout == "synthrad":
        items = synthrad_datalist(dataset_dir, check_files=False)
        facts = {"required": ("ct", "mr", "mask")}
    else:
        raise ValueError(f"layout={layout!r}: expected 'msd', 'brats' or 'synthrad'")
    return len(items), find_problems(items, root=dataset_dir, **facts, **options)  # type: ignore[arg-type]


def validate_folder(
    dataset_dir: str | os.PathLike, *, roi_size: Sequence[int] | int | None = None, contents: bool = True
) -> bool:
    """Check every data set in a folder, print the findings, and return whether none of them is fatal.

    Args:
        dataset_dir: a data set's folder, or a folder of data sets.
        roi_size: see :func:`check_datalist`.
        contents: whether to read the voxels, and not the headers alone.
    """
    good = True
    for layout, folder in find_datasets(dataset_dir):
        try:
            count, findings = validate_dataset(folder, layout, roi_size=roi_size, contents=contents)
        except (ValueError, OSError) as error:  # one data set's trouble does not hide another's
            print(f"{folder} ({layout}): {error}")
            good = False
            continue
        fatal = sum(finding.severity == FATAL for finding in findings)
        print(f"{folder} ({layout}): {count} items, {fatal} fatal, {len(findings) - fatal} warnings")
        for finding in findings:
            print(f"  {finding}")
        good = good and not fatal
    return good
