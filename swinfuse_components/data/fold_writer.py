"""Fold files of one or more data sets in one go."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .brats import brats_datalist
from .folds import assign_folds, save_folds, split_folds
from .msd import msd_datalist
from .synthrad import synthrad_datalist

_LAYOUTS: dict[str, Callable[..., list[dict]]] = {
    "msd": msd_datalist,
    "brats": brats_datalist,
    "synthrad": synthrad_datalist,
}


def write_folds(
    output_dir: str | os.PathLike,
    *dataset_dirs: str,
    layout: str = "msd",
    num_folds: int = 5,
    seed: int = 0,
    patient_pattern: str | None = None,
) -> list[str]:
    """Write ``<output_dir>/<data set>_folds.json`` for each data set; patients of the same name share their fold.

    Args:
        output_dir: folder of the fold files.
        dataset_dirs: the data sets' folders. Paths in a fold file are relative to its own (``root`` of ``load_fold``).
        layout: ``"msd"``, ``"brats"`` or ``"synthrad"``.
        num_folds: number of folds.
        seed: seed of the partition.
        patient_pattern: see :func:`msd_datalist`; for the MSD layout alone.

    Returns:
        Paths of the files written.

    Raises:
        ValueError: if no data set is given, two have the same folder name, or the layout is unknown.
        FileExistsError: if a fold file exists: folds that a run used are not replaced in silence.
    """
    if layout not in _LAYOUTS or not dataset_dirs:
        raise ValueError(
            f"layout={layout!r} of {list(dataset_dirs)}: expected data sets, layout one of {list(_LAYOUTS)}"
        )
    options = {"patient_pattern": patient_pattern} if layout == "msd" else {}
    lists = {os.path.basename(os.path.abspath(d)): (d, _LAYOUTS[layout](d, **options)) for d in dataset_dirs}
    targets = {name: Path(output_dir) / f"{name}_folds.json" for name in lists}
    present = [str(path) for path in targets.values() if path.exists()]
    if present:
        raise FileExistsError(f"fold files exist already, and are not replaced: {present}")
    if len(lists) != len(dataset_dirs):
        raise ValueError(f"two of the data sets have the same folder name: {list(dataset_dirs)}")
    folds = assign_folds((str(item["patient"]) for _, items in lists.values() for item in items), num_folds, seed)
    return [
        str(save_folds(split_folds(items, assignment=folds), targets[name], folder))
        for name, (folder, items) in lists.items()
    ]
