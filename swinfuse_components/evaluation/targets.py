"""Data sets to test on: their cases, classes and channels, each case read from disk once."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.transforms import LoadImage, Orientation

from ..data import get_modality, item_key, load_fold, load_folds, read_task, same_patients, split_folds
from ..data.checks import Kind, check_image
from ..data.paths import unique_names
from ..data.volumes import Volume, grid_difference

logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """One volume with its truth, as read: image (C, D, H, W), truth (D, H, W), voxel size in millimetres."""

    name: str
    image: torch.Tensor
    truth: np.ndarray
    spacing: tuple[float, ...]
    modality: str
    target: str = ""

    @property
    def affine(self) -> np.ndarray:
        """From voxels to millimetres, (4, 4); ones for an image that was not read from a file."""
        return np.asarray(getattr(self.image, "affine", np.eye(4)), dtype=np.float64)

    def only(self, channel: int | None) -> "Case":
        """The same case with a single channel of its image; with all of them for None."""
        return self if channel is None else self._replace(image=self.image[channel : channel + 1])


def named_patients(items: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Patients of a data list, where its items name them."""
    return frozenset(same_patients(item["patient"] for item in items if "patient" in item))


def read_labels(path: str | Path, image: torch.Tensor, allowed: Iterable[int] | None = None) -> np.ndarray:
    """Label map (D, H, W) from a file, on the grid of an image (C, D, H, W) with an affine.

    A map that is stored with other axes is turned. Values within 0.001 of a whole number are rounded. ``allowed`` are
    the label values, background left out; None allows any. Another grid, several channels, or other values are errors.
    """
    labels = LoadImage(ensure_channel_first=True)(path)
    affine = np.asarray(getattr(image, "affine", np.eye(4)), dtype=np.float64)
    if labels.shape[0] != 1:
        raise ValueError(f"{path} has {labels.shape[0]} channels, expected one")
    labels = Orientation(axcodes="".join(nib.aff2axcodes(affine)), labels=None)(labels)
    grid, own = (
        Volume("", tuple(shape), np.asarray(a, dtype=np.float64), True, lambda: np.zeros(0))
        for shape, a in ((image.shape[1:], affine), (labels.shape[1:], labels.affine))
    )
    if difference := grid_difference(grid, own):
        raise ValueError(f"{path} is not on the grid of the image: {difference}")
    values = labels[0].numpy()
    whole = np.rint(values)
    if not np.isfinite(values).all() or np.abs(values - whole).max() > 1e-3:
        raise ValueError(f"{path} holds values that are not whole numbers")
    undeclared = {int(v) for v in np.unique(whole)} - {0, *allowed} if allowed is not None else set()
    if undeclared or whole.min() < 0:
        expected = sorted({0, *(allowed or ())})
        raise ValueError(f"{path} holds undeclared values {sorted(undeclared)}, expected some of {expected}")
    return whole.astype(np.int16)


class Source:
    """A row of the matrix: a network, a folder of predictions or a trivial baseline."""

    name: str
    trained_on = "-"
    views: Sequence[str] = ("image",)
    classes: Mapping[str, int] | None = None
    training_patients: frozenset[str] = frozenset()
    keeps_predictions = False

    def fingerprint(self) -> str:
        """A text that changes when the answers would."""
        return self.name

    def problems(self, target: "Target") -> list[str]:
        """Reasons why this row cannot be computed for a target; empty if it can."""
        return []

    def predict(self, case: Case, view: str = "image") -> np.ndarray:
        """Labels (D, H, W) on the grid of the case."""
        raise NotImplementedError


class Target:
    """A data set to test on.

    Args:
        name: column of the table.
        items: data list; ``image`` (one file, or one for each channel), ``label``, and ``patient`` where known.
        modality: name of a registered modality.
        classes: label value by name, background left out: ``{"tumour": 1}``. None if only the union is asked for.
        channels: names of the image's channels, in order.
        channel: what a model with fewer channels is shown: a name, a number, or ``"each"``, which makes a column of
            every channel in ``views``. None hands over all the channels.

    Raises:
        ValueError: if the list is empty, an item lacks a key, two cases share a name, or the channel does not exist.
    """

    def __init__(
        self,
        name: str,
        items: Iterable[Mapping[str, Any]],
        *,
        modality: str,
        classes: Mapping[str, int] | None = None,
        channels: Sequence[str] = ("image",),
        channel: str | int | None = None,
    ) -> None:
        self.name, self.classes, self.channels, items = name, classes, list(channels), list(items)
        self.modality = get_modality(modality).name
        if not items:
            raise ValueError(f"target {name}: the data list is empty")
        for item in items:
            if missing := [key for key in ("image", "label") if not item.get(key)]:
                raise ValueError(f"target {name}: {missing} missing in the item {item}")
        labels = Counter(str(item["label"]) for item in items)
        if twice := sorted(label for label, count in labels.items() if count > 1):
            raise ValueError(f"target {name}: several cases have one label {twice}: expected a file for each")
        names = unique_names(labels)
        self.items = [{**item, "case": names[str(item["label"])]} for item in items]
        self.views = self._channel_views(channel)

    def _channel_views(self, channel: str | int | None) -> dict[str, int | None]:
        if channel is None:
            return {self.name: None}
        if channel == "each":
            return {f"{self.name} [{c}]": i for i, c in enumerate(self.channels)}
        number = self.channels.index(channel) if channel in self.channels else channel
        if type(number) is not int or number not in range(len(self.channels)):
            expected = f"one of {self.channels}, a number below {len(self.channels)}, or 'each'"
            raise ValueError(f"target {self.name}: channel {channel!r} does not exist, expected {expected}")
        return {f"{self.name} [{self.channels[number]}]": number}

    @property
    def patients(self) -> frozenset[str]:
        """Patients of the cases, where the items name them."""
        return named_patients(self.items)

    def fingerprint(self, item: Mapping[str, Any]) -> str:
        """Files of an item with their sizes and times: a text that changes when a file is replaced."""
        return item_key({"image": item["image"], "label": item["label"]}, self.modality).decode()

    def check(self, items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Read every case, before anything is computed: those that cannot be scored, and why.

        What makes a score doubtful (not Hounsfield units, an empty truth) is logged with the file's name.
        """
        broken = {}
        for item in items:
            files = f"{item['image']} with {item['label']}"
            try:
                case = self.load(item)
            except Exception as error:  # whatever a reader raises for a broken file
                broken[item["case"]] = f"{files}: {type(error).__name__}: {error}"
                continue
            found = [finding for channel in case.image.numpy() for finding in check_image(channel, self.modality)]
            if constant := [text for kind, text in found if kind is Kind.CONSTANT]:
                broken[item["case"]] = f"{files}: {constant[0]}"
                continue
            texts = [text for _, text in found] + ([] if case.truth.any() else ["the truth holds background alone"])
            for text in dict.fromkeys(texts):
                logger.warning("%s: %s", files, text)
        return broken

    def load(self, item: Mapping[str, Any]) -> "Case":
        """Read one case; what a reader raises passes through.

        ValueError if the label is not on the image's grid or holds other values than the classes, or the image has
        other channels than declared or values that are not finite.
        """
        load = LoadImage(ensure_channel_first=True)
        image = item["image"]
        volume = load(list(image) if isinstance(image, (list, tuple)) else image)
        truth = read_labels(item["label"], volume, None if self.classes is None else self.classes.values())
        if volume.shape[0] != len(self.channels):
            raise ValueError(f"the image has {volume.shape[0]} channel(s), expected {len(self.channels)}")
        if not torch.isfinite(volume).all():
            raise ValueError("the image holds values that are not finite")
        spacing = tuple(float(s) for s in volume.pixdim)
        return Case(item["case"], volume, truth, spacing, self.modality, self.name)


def read_target(
    dataset_dir: str | Path,
    *,
    name: str | None = None,
    channel: str | int | None = None,
    modality: str | None = None,
    patient_pattern: str | None = None,
    fold: int | None = None,
    num_folds: int = 5,
    split_seed: int = 0,
    fold_file: str | None = None,
    limit: int | None = None,
) -> Target:
    """A column from a folder in any labelled layout, see :func:`~swinfuse_components.data.read_task`.

    ``channel`` is what a model with one channel is shown of several (:class:`Target`); one of one needs no choice. With
    a ``fold`` it is tested on alone, split as the fine-tuning bundles split, by ``num_folds`` and ``split_seed`` or a
    ``fold_file``; None takes every case. ``limit`` takes at most so many, evenly spaced in the list.
    """
    task, items = read_task(Path(dataset_dir).expanduser(), modality=modality, patient_pattern=patient_pattern)
    classes = {text: value for value, text in task.labels.items() if value != 0}
    if fold_file is not None:
        items = load_folds(fold_file, root=task.dataset_dir, channels=task.channels)
    if fold is not None:
        items = load_fold(items if fold_file else split_folds(items, num_folds, seed=split_seed), fold, "validation")
    if limit is not None and limit < len(items):
        items = [items[round(i * (len(items) - 1) / max(limit - 1, 1))] for i in range(limit)]
    shown: dict[str, Any] = {"channels": task.channels, "channel": None if task.in_channels == 1 else channel}
    return Target(name or task.name, items, modality=task.modality, classes=classes, **shown)


def read_targets(
    datasets: str | Path | Mapping[str, Any] | Iterable[str | Path | Mapping[str, Any]], **options: Any
) -> list[Target]:
    """Columns from folders: a folder, several, or dictionaries ``{"dataset_dir": folder, "channel": "T2", …}``."""
    entries = [datasets] if isinstance(datasets, (str, Path, Mapping)) else datasets
    named = [entry if isinstance(entry, Mapping) else {"dataset_dir": entry} for entry in entries]
    return [read_target(**{**options, **entry}) for entry in named]
