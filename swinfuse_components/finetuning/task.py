"""What follows from a task's classes: regions of the metric, and mirrors that keep their meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["mirror_axes", "patients_of", "regions_of"]


def regions_of(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Regions that the Dice score is computed on: ``{name: label values whose union it is}``.

    By default every foreground class is its own region. A task whose structures contain each other says so in its
    overlay (``regions: {liver: [1, 2], tumour: [2]}``) or in ``model.json``.

    Example::

        regions_of({"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}})
        # {"Anterior": [1], "Posterior": [2]}
    """
    if description.get("regions"):
        return {name: list(values) for name, values in description["regions"].items()}
    return {name: [int(value)] for value, name in description["labels"].items() if int(value) != 0}


def mirror_axes(description: Mapping[str, Any]) -> list[int]:
    """Spatial axes of a right-anterior-superior volume that may be mirrored for augmentation.

    All three, except the first (left to right) when a class is named for its side: a mirrored left parotid gland would
    be labelled as what it no longer is.
    """
    names = " ".join(str(name).lower() for name in description["labels"].values())
    return [1, 2] if "left" in names or "right" in names else [0, 1, 2]


def patients_of(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sorted patients of a data list; an item without one is known by the name of its (first) image."""
    patients = set()
    for item in items:
        image = item["image"]
        patients.add(str(item.get("patient") or Path(image if isinstance(image, str) else image[0]).name))
    return sorted(patients)
