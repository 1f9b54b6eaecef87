"""What a task's ``dataset.json`` does not say, measured on its images: voxel spacing and CT window."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from ..transforms import load_on_grid

logger = logging.getLogger(__name__)


def fingerprint(
    items: Sequence[Mapping[str, Any]], modality: str, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Median spacing of the images and, for CT, the range of Hounsfield units under their labels.

    The rule is nnU-Net's: the grid is the median spacing of the data, and CT is clipped to the 0.5 and 99.5
    percentiles of the voxels inside the annotated structures (Isensee et al., Nature Methods 18, 2021). It is here for
    tasks that have no settings of their own. As in nnU-Net, give the whole data set with ``image`` and ``label``, so
    that all folds share one grid and window and their models can form an ensemble. What ``known``, the ``model.json``
    of a model that is trained further, already holds is taken and not measured.

    Returns:
        ``{"spacing": [R, A, S] in mm, "ct_window": [low, high] in HU or None}``, from at most 24 cases that are spread
        evenly over the list, and 20000 labelled voxels of each; it is also logged.

    Raises:
        ValueError: for an empty list.
    """
    if known and known.get("spacing") and (modality != "ct" or known.get("ct_window")):
        return {"spacing": known["spacing"], "ct_window": known.get("ct_window")}
    if not items:
        raise ValueError("no items to measure spacing and intensities on")
    load = Compose(load_on_grid("image", None, labels=["label"]))
    generator = np.random.default_rng(0)
    items = sorted(items, key=lambda item: str(item["image"]))
    chosen = [items[int(index)] for index in np.unique(np.linspace(0, len(items) - 1, 24).astype(int))]
    spacings, samples = [], []
    for item in chosen:
        loaded = load({"image": item["image"], "label": item["label"]})
        spacings.append(loaded["image"].pixdim.tolist())
        if modality == "ct":
            inside = loaded["image"][:1][loaded["label"][:1] > 0]
            values = torch.as_tensor(inside).numpy()
            if values.size:
                samples.append(generator.choice(values, min(values.size, 20000), replace=False))
    result: dict[str, Any] = {"spacing": [round(float(s), 4) for s in np.median(spacings, axis=0)], "ct_window": None}
    if samples:
        result["ct_window"] = [round(float(p), 1) for p in np.percentile(np.concatenate(samples), (0.5, 99.5))]
    logger.info("measured on %d of %d cases: %s", len(chosen), len(items), result)
    return result
