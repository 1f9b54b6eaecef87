"""What follows from a task's classes: regions of the metric, and mirrors that keep their meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["mirror_axes", "patients_of", "regions_of"]

_DIRECTIONS = (("left", "right"), ("anterior", "posterior"), ("superior", "inferior", "upper", "lower"))


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

    All three, except those that a class is named for: a mirrored left parotid gland, or the anterior part of a mirrored
    hippocampus, would be labelled as what it no longer is.

    Example::

        mirror_axes({"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}})  # [0, 2]
    """
    names = " ".join(str(name).lower() for name in description["labels"].values())
    return [axis for axis, words in enumerate(_DIRECTIONS) if not any(word in names for word in words)]


def patients_of(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sorted patients of a data list; an item without one is known by the name of its (first) image."""
    patients = set()
    for item in items:
        image = item["image"]
        patients.add(str(item.get("patient") or Path(image if isinstance(image, str) else image[0]).name))
    return sorted(patients)
