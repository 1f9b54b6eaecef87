"""From a path a user types to segmentations and their volumes."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

__all__ = ["FlipAveragingInferer", "VolumeTable", "list_images", "list_sequences"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def list_images(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Items ``{"image": file or DICOM folder}`` for a path as users have them.

    Args:
        path: one image file; a folder of one DICOM series; a folder of image files or of DICOM folders; or a Medical
            Segmentation Decathlon task, of which ``imagesTs`` is taken.

    Raises:
        FileNotFoundError: if the path does not exist or holds no image.

    Example::

        list_images("study/ct.nrrd")  # [{"image": "study/ct.nrrd"}]
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no such image or folder: {root}")
    if root.is_file():
        return [{"image": str(root)}]
    if (root / "dataset.json").is_file() and (root / "imagesTs").is_dir():
        root = root / "imagesTs"
    if _is_dicom_series(root):
        return [{"image": str(root)}]
    found = [
        child
        for child in sorted(root.iterdir())
        if not child.name.startswith(".")
        and (child.name.lower().endswith(IMAGE_SUFFIXES) or (child.is_dir() and _is_dicom_series(child)))
    ]
    if not found:
        raise FileNotFoundError(
            f"{root} holds no image: expected {', '.join(IMAGE_SUFFIXES)} or folders of DICOM slices"
        )
    return [{"image": str(child)} for child in found]


def list_sequences(path: str | os.PathLike[str], sequences: Sequence[str]) -> list[dict[str, Any]]:
    """Items for a network of several registered sequences: ``image`` names one file or DICOM folder for each of them.

    Args:
        path: a patient's folder with ``<folder's name>_<sequence>`` for every sequence, each an image file or a folder
            of DICOM slices; a folder of such folders; or what :func:`list_images` takes, files with all channels.
        sequences: their names, in the order of the channels.

    Raises:
        FileNotFoundError: if the path does not exist or holds no image, or a patient lacks a sequence; all that is
            missing is named.

    Example::

        list_sequences("new/P1", ["flair", "t1"])  # [{"image": ["new/P1/P1_flair.nii.gz", "new/P1/P1_t1"], …}]
    """
    root = Path(os.path.abspath(path))
    folders = [root, *sorted(child for child in root.iterdir() if child.is_dir())] if root.is_dir() else []
    items, missing = [], []
    for folder in folders:
        found = {sequence: _image_named(folder, f"{folder.name}_{sequence}") for sequence in sequences}
        if any(found.values()):
            missing += [f"{folder.name}_{sequence} in {folder}" for sequence, image in found.items() if image is None]
            items.append({"image": [str(image) for image in found.values()], "patient": folder.name})
    if missing:
        raise FileNotFoundError(f"{len(missing)} sequence(s) are missing: {', '.join(missing)}")
    return items or list_images(path)


def _image_named(folder: Path, name: str) -> Path | None:
    files = [folder / (name + suffix) for suffix in IMAGE_SUFFIXES]
    image = next((file for file in files if file.is_file()), folder / name)
    return image if image.is_file() or (image.is_dir() and _is_dicom_series(image)) else None


def _is_dicom_series(folder: Path) -> bool:
    """Whether the first plain file is DICOM: ``DICM`` after a preamble of 128 bytes."""
    for child in sorted(folder.iterdir()):
        if child.is_file() and not child.name.startswith("."):
            with child.open("rb") as stream:
                stream.seek(128)
                return stream.read(4) == b"DICM"
    return False


class FlipAveragingInferer(Inferer):
    """Average the logits over mirrored copies of the input (flip test-time augmentation).

    Args:
        inferer: inferer that handles each copy, usually a sliding window.
        axes: spatial axes to mirror; all their ``2 ** len(axes)`` combinations are averaged. With no axes the inferer
            answers alone. Do not mirror an axis that tells left from right if the labels do.
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int] = ()) -> None:
        super().__init__()
        self.inferer = inferer
        self.axes = tuple(axes)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor] | nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits (B, classes, *spatial) for ``inputs`` (B, C, *spatial)."""
        total = self.inferer(inputs, network, *args, **kwargs)
        count = 1
        for size in range(1, len(self.axes) + 1):
            for chosen in combinations(self.axes, size):
                dims = [axis + 2 for axis in chosen]
                total = total + torch.flip(self.inferer(torch.flip(inputs, dims), network, *args, **kwargs), dims)
                count += 1
        return total / count


class VolumeTable:
    """Handler that writes the volume of every class in millilitres, one row per image, as CSV.

    Reads the label maps that postprocessing leaves in ``engine.state.output`` (each a MetaTensor of shape (1, D, H, W)
    whose affine is in millimetres; a voxel's volume is the absolute determinant of its 3 x 3 part).

    Args:
        path: CSV file, replaced at the end of a run.
        labels: ``{value: name}``; ``0`` is left out.
        key: key of the label map.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Mapping[Any, str], key: str = "pred") -> None:
        self.path = Path(path)
        self.labels = {int(value): name for value, name in labels.items() if int(value) != 0}
        self.key = key
        self.rows: list[list[Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.write())

    def __call__(self, engine: Engine) -> None:
        """Add a row for each image of the batch."""
        for item in engine.state.output:
            label_map = item[self.key]
            if not isinstance(label_map, MetaTensor):
                raise TypeError(f"'{self.key}' is a {type(label_map).__name__}, expected a MetaTensor with its affine")
            millilitres = float(torch.linalg.det(label_map.affine[:3, :3].double()).abs()) / 1000
            name = item[self.key].meta.get("filename_or_obj") or item["image"].meta.get("filename_or_obj", "")
            counts = [int((label_map == value).sum()) for value in self.labels]
            self.rows.append([str(name), *(f"{count * millilitres:.4f}" for count in counts)])

    def write(self) -> None:
        """Write the collected rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", *(f"{name} (ml)" for name in self.labels.values())])
            writer.writerows(self.rows)
