"""What a task's ``dataset.json`` does not say, measured on its images: voxel spacing and CT window."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from ..transforms import load_on_grid

__all__ = ["fingerprint"]

logger = logging.getLogger(__name__)


def fingerprint(
    items: Sequence[Mapping[str, Any]],
    modality: str,
    known: Mapping[str, Any] | None = None,
    *,
    max_cases: int = 24,
    percentiles: tuple[float, float] = (0.5, 99.5),
    voxels_per_case: int = 20000,
    seed: int = 0,
) -> dict[str, Any]:
    """Median spacing of the images and, for CT, the range of Hounsfield units under their labels.

    The rule is nnU-Net's: the grid is the median spacing of the data, and CT is clipped to the 0.5 and 99.5
    percentiles of the voxels inside the annotated structures (Isensee et al., Nature Methods 18, 2021). It is here for
    tasks that have no settings of their own.

    Args:
        items: data list with ``image`` and ``label`` files; its order does not matter. As in nnU-Net, give the whole
            data set, so that all folds share one grid and window and their models can form an ensemble.
        modality: ``"ct"`` or ``"mr"``; the window is measured for CT alone.
        known: a description that may already hold ``spacing`` and ``ct_window`` (the ``model.json`` of a model that is
            trained further); they are then taken and nothing is measured.
        max_cases: at most this many cases are read, spread evenly over the list.
        percentiles: lower and upper percentile of the window.
        voxels_per_case: labelled voxels sampled from each case.
        seed: seed of that sampling.

    Returns:
        ``{"spacing": [R, A, S] in mm, "ct_window": [low, high] in HU or None}``; it is also logged.

    Raises:
        ValueError: for an empty list.
    """
    if known and known.get("spacing") and (modality != "ct" or known.get("ct_window")):
        return {"spacing": known["spacing"], "ct_window": known.get("ct_window")}
    if not items:
        raise ValueError("no items to measure spacing and intensities on")
    load = Compose(load_on_grid("image", None, labels=["label"]))
    generator = np.random.default_rng(seed)
    items = sorted(items, key=lambda item: str(item["image"]))
    chosen = [items[int(index)] for index in np.unique(np.linspace(0, len(items) - 1, max_cases).astype(int))]
    spacings, samples = [], []
    for item in chosen:
        loaded = load({"image": item["image"], "label": item["label"]})
        spacings.append(loaded["image"].pixdim.tolist())
        if modality == "ct":
            inside = loaded["image"][:1][loaded["label"][:1] > 0]
            values = torch.as_tensor(inside).numpy()
            if values.size:
                samples.append(generator.choice(values, min(values.size, voxels_per_case), replace=False))
    result: dict[str, Any] = {"spacing": [round(float(s), 4) for s in np.median(spacings, axis=0)], "ct_window": None}
    if samples:
        result["ct_window"] = [round(float(p), 1) for p in np.percentile(np.concatenate(samples), percentiles)]
    logger.info("measured on %d of %d cases: %s", len(chosen), len(items), result)
    return result
