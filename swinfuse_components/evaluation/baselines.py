"""Trivial segmentation baselines: what position alone, or a single threshold, would score.

A baseline has no classes: it stands for the union of the foreground, and with mapped classes its mask is called each of
them in turn, which is the most generous reading.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage, Resize
from skimage.filters import threshold_otsu

from ..data import item_key, load_fold, read_task, split_folds
from .targets import Case, Source, named_patients


class EverythingForeground(Source):
    """Every voxel is foreground: its Dice is 2f / (1 + f) where a share f of the volume is foreground."""

    name = "everything foreground"

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        return np.ones(case.truth.shape, dtype=np.uint8)


class OtsuThreshold(Source):
    """Voxels brighter than Otsu's threshold (scikit-image) of the case's own histogram; none of a constant image."""

    name = "Otsu's threshold"

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        image = np.asarray(case.image[0])
        # flat, since scikit-image warns of a volume of 3 or 4 slices, which it takes for colours
        return (image > threshold_otsu(image.ravel())).astype(np.uint8)


class MeanTrainingMask(Source):
    """The average place of the target: training masks stretched to one box, averaged, and cut at the best level.

    The level is the one whose mask has the highest mean Dice on the training masks themselves. The baseline knows where
    in the volume the target lies, and nothing of the image. ``items`` are a data list with key ``label``: the training
    part. With ``patient``, they count for the check that no tested patient was trained on. ``name`` is of the row.
    """

    size = (64, 64, 64)  # of the common box, in voxels

    def __init__(self, items: Iterable[Mapping[str, Any]], *, name: str = "mean training mask") -> None:
        self.name, self.items = name, list(items)
        if not self.items:
            raise ValueError(f"{name}: the data list of training masks is empty")
        self.training_patients = named_patients(self.items)

    def fingerprint(self) -> str:
        """Name, box and the files averaged."""
        return item_key({"labels": sorted(str(i["label"]) for i in self.items)}, self.name, str(self.size)).decode()

    @cached_property
    def box(self) -> np.ndarray:
        """The mask in the common box."""
        load, resize = LoadImage(ensure_channel_first=True), Resize(self.size, mode="trilinear")
        masks = np.stack([np.asarray(resize((load(item["label"]) > 0).float()))[0] for item in self.items])
        mean, truth, axes = masks.mean(0), masks > 0.5, (1, 2, 3)
        boxes = [mean > level for level in np.linspace(0.05, 0.95, 19)]
        dice = [np.mean(2 * (truth & b).sum(axes) / np.maximum(truth.sum(axes) + b.sum(), 1)) for b in boxes]
        return boxes[int(np.argmax(dice))]

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        box = torch.as_tensor(self.box, dtype=torch.float32)[None]
        return (np.asarray(Resize(case.truth.shape, mode="trilinear")(box))[0] > 0.5).astype(np.uint8)


def mean_masks(
    datasets: Iterable[str | Path], *, fold: int | None = None, num_folds: int = 5, split_seed: int = 0
) -> list[MeanTrainingMask]:
    """The average training mask of each of several Decathlon tasks, one ``fold`` held out (None: the first)."""
    return [
        MeanTrainingMask(
            load_fold(split_folds(items, num_folds, seed=split_seed), fold or 0, "training"),
            name=f"mean training mask of {task.name}",
        )
        for task, items in map(read_task, datasets)
    ]
