"""The description of a segmentation model, ``model.json``, and the network and preprocessing that follow from it.

Training knows modality, channels and classes from the data set and its settings from the configuration; whoever loads
``model.pt`` later has neither. ``model.json`` carries them over, and whatever rebuilds a trained model does so with
:func:`build_network` and :func:`build_preprocessing`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, CropForegroundd, Lambdad

from ..data import describe_task, get_modality, patient_of
from ..data.paths import read_json
from ..networks import SwinFUSE
from ..transforms import VIEWS, MatchHistogramd, ModalityIntensityd, load_on_grid

REQUIRED_KEYS = ("name", "modality", "channels", "labels", "spacing", "roi_size", "feature_size")
#: What stands for a key that a description of an earlier version lacks.
GENERIC_DESCRIPTION: dict[str, Any] = {
    "name": "unnamed task",
    "modality": "ct",
    "channels": ["CT"],
    "labels": {"0": "background", "1": "foreground"},
    "regions": None,  # each class by itself
    "codes": {},  # of the classes, for DICOM segmentations
    "sigmoid": False,  # True: one output channel for each region, which may overlap
    "spacing": [1.0, 1.0, 1.0],
    "ct_window": [-1000, 1000],
    "mr_nonzero": False,
    "input": "image",
    "histogram": None,  # quantiles of the training images, which those at test time are matched to
    "largest_component": [],  # label values of which only the largest connected component is kept
    "roi_size": [96, 96, 96],
    "feature_size": 48,
    "window_size": 7,
    "dim": "swinfuse",
    "dim_options": None,
    "network_options": {"norm_name": "instance", "downsample": "merging"},
    "training_patients": [],
    "pretraining_patients": [],
}


def read_description(
    paths: Sequence[str | os.PathLike[str]], *, modality: str | Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read the first of ``paths`` that exists, with all keys of :data:`GENERIC_DESCRIPTION`.

    Each is a ``model.json`` as a training writes it, or a labelled data set (:func:`describe_task`), which does not
    tell ``spacing`` and ``ct_window``: they are ``None``. ``modality`` is that of the images, where the data set does
    not tell it or they are of another than the model's.

    Raises:
        FileNotFoundError: if there is none of them.
        ValueError: if a file is not JSON, lacks a key that has to be known, or holds what a key cannot mean.
    """
    for path in map(Path, paths):
        found = _read_model(path) if path.name == "model.json" else _facts(path, modality)
        if found is not None:
            return {**GENERIC_DESCRIPTION, **found, **({"modality": get_modality(modality).name} if modality else {})}
    raise FileNotFoundError(
        f"found neither a labelled data set nor the model.json of a model at {' or '.join(map(str, paths))}"
    )


def _facts(path: Path, modality: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a labelled data set says of itself; None if there is none. Spacing and window: see fingerprint()."""
    try:
        task = describe_task(path, modality=modality)
    except (FileNotFoundError, NotADirectoryError):  # a single image, or a folder of images
        return None
    labels = {str(value): name for value, name in task.labels.items()}
    facts = {"name": task.name, "modality": task.modality, "channels": list(task.channels), "labels": labels}
    return {**facts, "regions": task.regions or None, "codes": task.codes, "spacing": None, "ct_window": None}


def _read_model(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = read_json(path)
    if missing := [key for key in REQUIRED_KEYS if key not in content]:
        raise ValueError(f"{path}: missing {missing}, found {sorted(content)}")
    odd = [key for key, value in content.items() if key in GENERIC_DESCRIPTION and not _is_sound(key, value)]
    if odd:
        pairs = "; ".join(f"{key} is {content[key]!r}, expected such as {GENERIC_DESCRIPTION[key]!r}" for key in odd)
        raise ValueError(f"{path}: {pairs}")
    try:
        kept = {"largest_component": content.get("largest_component") or [0]}
        check_regions({**(content.get("regions") or {}), **kept}, content["labels"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


def _is_sound(key: str, value: Any) -> bool:
    """Whether a value of ``model.json`` can be what its key means, judged by what the default is."""
    default = GENERIC_DESCRIPTION[key]
    if default is None or (key == "ct_window" and value is None):
        return True
    if key == "labels":
        names = list(map(str, value.values())) if isinstance(value, dict) else []
        return len(set(names)) == len(names) > 1 and all(str(number).isdecimal() for number in value)
    each = value if isinstance(value, list) else [value]
    are_numbers = all(isinstance(number, int | float) and not isinstance(number, bool) for number in each)
    if key in ("spacing", "ct_window", "roi_size"):
        can_be = key != "spacing" or all(number > 0 or number == -1 for number in each if are_numbers)
        return are_numbers and len(each) == len(default) and can_be
    if key in ("feature_size", "window_size", "largest_component"):
        return are_numbers
    return isinstance(value, type(default)) and (key != "channels" or bool(value))


def build_network(description: Mapping[str, Any], **options: Any) -> SwinFUSE:
    """The network of a description, with random weights.

    ``options`` are further arguments of :class:`~swinfuse_components.networks.SwinFUSE`, e.g. ``use_checkpoint``.
    """
    keys = ("roi_size", "feature_size", "window_size", "dim", "dim_options")
    return SwinFUSE(
        in_channels=len(description["channels"]),
        out_channels=len(regions_of(description) if description["sigmoid"] else description["labels"]),
        **{key: description[key] for key in keys},
        **{**description["network_options"], **options},
    )


def build_preprocessing(
    description: Mapping[str, Any], keys: str | Sequence[str] = "image", *, load: bool = True
) -> Compose:
    """Deterministic transforms from a file to what the network of a description takes, (C, D, H, W) in [0, 1].

    A ``modality`` of ``None`` means that each item says its own. A control that was trained on an ``input`` of
    ``blank`` images or on the ``silhouette`` is tested on the same; another one is a ValueError. With ``load=False``
    items hold tensors (C, D, H, W) with an affine instead of files.
    """
    shown, histogram = description["input"], description["histogram"]
    if shown not in VIEWS:
        raise ValueError(f"the model's description asks for input {shown!r}: expected one of {sorted(VIEWS)}")
    steps = [
        *load_on_grid(keys, description["spacing"], load=load),
        ModalityIntensityd(
            keys,
            modality=description["modality"],
            ct_window=description["ct_window"] or GENERIC_DESCRIPTION["ct_window"],
            mr_nonzero=description["mr_nonzero"],
        ),
        CropForegroundd(keys, source_key=keys if isinstance(keys, str) else keys[0], allow_smaller=True),
        *([MatchHistogramd(keys, histogram)] if histogram else []),
        *([Lambdad(keys, VIEWS[shown])] if shown != "image" else []),
    ]
    return Compose(steps)


def regions_of(description: Mapping[str, Any]) -> dict[str, list[int]]:
    """Regions that the Dice score is computed on: ``{name: label values whose union it is}``.

    By default every foreground class is its own region. A task whose structures contain each other says so in its
    overlay (``regions: {liver: [1, 2], tumour: [2]}``) or in ``model.json``.
    """
    if description.get("regions"):
        return {name: list(values) for name, values in description["regions"].items()}
    return {name: [int(value)] for value, name in description["labels"].items() if int(value) != 0}


def check_regions(regions: Mapping[str, Sequence[int]], labels: Mapping[Any, str]) -> None:
    """ValueError for a region that is not made of label values that the data set declares."""
    known = sorted(int(value) for value in labels)
    for name, values in regions.items():
        if not values or not set(values) <= set(known):
            raise ValueError(f"'{name}' is {list(values)}, expected some of the label values {known}")


def labels_of_regions(masks: torch.Tensor, regions: Mapping[str, Sequence[int]]) -> torch.Tensor:
    """One label map (1, D, H, W) from a mask for each region (C, D, H, W), in the order of ``regions``.

    Regions of fewer values lie over those of more; each is painted with its own value, the first that no region over it
    has: whole tumour 2, core 1, enhancing tumour 4 for BraTS.
    """
    labels, values = torch.zeros_like(masks[:1], dtype=torch.int16), list(regions.values())
    order = sorted(range(len(values)), key=lambda place: -len(values[place]))
    for rank, place in enumerate(order):
        above = {value for other in order[rank + 1 :] for value in values[other]}
        own = [value for value in values[place] if value not in above] or list(values[place])
        labels[masks[place : place + 1] > 0] = own[0]
    return labels


def patients_of(items: Iterable[Mapping[str, Any]], description: str | os.PathLike[str] | None = None) -> list[str]:
    """Sorted patients of a data list; an item without one is known by the name of its (first) image.

    ``description`` is the ``model.json`` of weights that training goes on from; its patients are added, if it exists.
    """
    patients = set()
    for item in items:
        image = item["image"]
        patients.add(str(item.get("patient") or patient_of(image if isinstance(image, str) else image[0])))
    if description is not None and os.path.isfile(description):
        known = read_description([description])
        patients |= {*known["training_patients"], *known["pretraining_patients"]}
    return sorted(patients)
