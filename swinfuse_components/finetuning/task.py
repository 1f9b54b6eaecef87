"""Regions of the metric, and the patients of a data list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["patients_of", "regions_of"]


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


def patients_of(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sorted patients of a data list; an item without one is known by the name of its (first) image."""
    patients = set()
    for item in items:
        image = item["image"]
        patients.add(str(item.get("patient") or Path(image if isinstance(image, str) else image[0]).name))
    return sorted(patients)
