"""Images for pre-training from any number of data sets, in any layout, paired or not."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from monai.utils import ensure_tuple

from .checks import check_datalist
from .folds import select_patients
from .inputs import find_images, list_images, modality_of_file
from .layouts import BRATS_CHANNELS, BRATS_LABELS, brats_datalist, brats_folders, synthrad_datalist, synthrad_folders
from .modalities import REGISTRY, get_modality, modality_of_word
from .paths import existing_path
from .tasks import Task, read_channels, read_dataset_json, read_msd_task, training_items

ModalityLike = str | Mapping[str, Any] | None


def layout_of(path: str | os.PathLike) -> str | None:
    """``"msd"`` (with nnU-Net v2 and JSON lists), ``"brats"``, ``"synthrad"``, ``"images"``, or None for no data."""
    root = existing_path(path)
    if root.suffix == ".json" or (root / "dataset.json").is_file():
        return "msd"
    if root.is_dir() and brats_folders(root):
        return "brats"
    if root.is_dir() and synthrad_folders(root):
        return "synthrad"
    return "images" if root.is_file() or find_images(root) else None


def describe_task(path: str | os.PathLike, *, modality: ModalityLike = None) -> Task:
    """Facts of a labelled data set: a folder with ``dataset.json``, a JSON list, or a BraTS folder.

    ``modality`` says what the images are where the channels' names do not.
    """
    root = existing_path(path)
    if layout_of(root) != "brats":
        return read_msd_task(root, modality=modality)
    labels = {**BRATS_LABELS}
    if all(4 not in item["allowed_labels"] for item in brats_datalist(root)):  # BraTS 2023 and later
        labels[3] = labels.pop(4)
    return Task(root.name, str(root), "mr", BRATS_CHANNELS, labels)


def read_task(
    path: str | os.PathLike, *, modality: ModalityLike = None, patient_pattern: str | None = None
) -> tuple[Task, list[dict]]:
    """Facts (:func:`describe_task`) and data list."""
    task = describe_task(path, modality=modality)
    if layout_of(path) == "brats":
        return task, brats_datalist(path, patient_pattern=patient_pattern)
    return task, training_items(path, modality=modality, patient_pattern=patient_pattern)


def joint_datalist(datasets: Sequence[str | os.PathLike], *, patient_pattern: str | None = None) -> list[dict]:
    """Items of several labelled data sets with the same labels, each set drawn as often (:func:`sampling_weights`).

    ValueError if there is none, or one twice, or two differ in their labels or in the number of their channels.
    """
    if not datasets:
        raise ValueError("joint training needs data sets: --datasets \"['/data/ct','/data/mr']\"")
    if len({os.path.realpath(path) for path in datasets}) < len(datasets):
        raise ValueError(f"joint training needs different data sets, found {', '.join(map(str, datasets))}")
    read = [read_task(path, patient_pattern=patient_pattern) for path in datasets]
    first = read[0][0]
    for task, _ in read[1:]:
        if (task.labels, task.in_channels) != (first.labels, first.in_channels):
            raise ValueError(
                f"one training needs the same labels and channels: {first.dataset_dir} has {first.labels} in "
                f"{first.in_channels} channel(s), {task.dataset_dir} has {task.labels} in {task.in_channels}"
            )
    return [
        {**item, "modality": task.modality, "source": task.dataset_dir, "weight": 1.0}
        for task, items in read
        for item in items
    ]


def read_source(
    path: str | os.PathLike,
    *,
    modality: ModalityLike = None,
    regions: Sequence[str] | str | None = None,
    patient_pattern: str | None = None,
    series: str | None = None,
) -> list[dict]:
    """Images of one data set, without labels, in any layout.

    ``path`` is a folder, a JSON list or one volume. ``modality`` says what its images are where their names do not; in
    a SynthRAD folder it is the only one to take. ``regions`` are those of SynthRAD, ``series`` is for DICOM folders
    (:func:`list_images`), ``patient_pattern`` is that of :func:`patient_of`.

    Items have one ``image`` and its ``modality``, or registered images under the names of their modalities; each has
    ``patient``, and ``mask`` where there is one.
    """
    root = existing_path(path)
    kind = None if modality is None else get_modality(modality).name
    layout = layout_of(root)
    if layout is None:
        raise ValueError(f"'{root}' holds no images in any of the layouts of docs/data.md")
    if layout == "synthrad":
        items = synthrad_datalist(root, regions=regions, patient_pattern=patient_pattern)
        unwanted = set(REGISTRY) - {kind} if kind else set()
        return [{key: value for key, value in item.items() if key not in unwanted} for item in items]
    if layout == "images":
        listed = list_images(root, series=series, patient_pattern=patient_pattern)
        files = find_images(root) if root.is_dir() else [root]
        return [{**item, "modality": kind or modality_of_file(f, root)} for item, f in zip(listed, files)]
    if layout == "brats":
        listed, names = brats_datalist(root, patient_pattern=patient_pattern), tuple(BRATS_CHANNELS)
    else:
        _, file, content = read_dataset_json(root)
        listed = training_items(file, patient_pattern=patient_pattern, labelled=False)
        names = read_channels(content, file) if {"modality", "channel_names"} & set(content) else ()
    items = []
    for item in listed:
        for image, name in zip(ensure_tuple(item["image"]), chain(names, repeat(""))):
            found = kind or item.get("modality") or modality_of_word(name)
            if found is None:
                raise ValueError(
                    f"'{image}': its data list does not say the modality: say it with '--modality' ({sorted(REGISTRY)})"
                )
            items.append({"image": image, "modality": found, "patient": item["patient"]})
    return items


def pretraining_items(
    datasets: Sequence[str | Mapping[str, Any]],
    *,
    regions: Sequence[str] | str | None = None,
    modality: ModalityLike = None,
    patient_pattern: str | None = None,
    exclude_patients: Sequence[str] = (),
    **checks: Any,
) -> list[dict]:
    """Checked images of one or more data sets for pre-training, each data set in any layout.

    ``datasets`` are folders or files, or dictionaries such as ``{"path": "/data/Task51_CT", "weight": 2}`` of ``path``
    and, where needed, ``weight`` (how often the source is drawn), ``name``, ``modality``, ``regions``,
    ``patient_pattern``, ``series``: see :func:`read_source`. The arguments of these names are for all that do not say
    their own. ``exclude_patients`` are left out; ``checks`` are ``policy``, ``contents`` and the like of
    :func:`check_datalist`. Items are those of :func:`read_source`, with ``source``, and ``weight`` where it was given.

    Raises:
        DataListError: with all that is wrong with the files, among it empty masks.
        ValueError: if a data set cannot be read, or an unknown setting is given.
    """
    defaults = {"modality": modality, "regions": regions, "patient_pattern": patient_pattern}
    items: list[dict] = []
    for entry in [datasets] if isinstance(datasets, (str, Mapping)) else datasets:
        settings = dict(entry) if isinstance(entry, Mapping) else {"path": entry}
        if "path" not in settings or set(settings) - {"path", "name", "weight", "series", *defaults}:
            raise ValueError(
                f"datasets: {dict(settings)}: expected 'path', and perhaps 'modality', 'weight', 'name', 'regions',"
                " 'patient_pattern', 'series'"
            )
        source = {"source": str(settings.pop("name", settings["path"]))}
        if "weight" in settings:
            source["weight"] = settings.pop("weight")
        items += [{**item, **source} for item in read_source(**{**defaults, **settings})]
    return check_datalist(select_patients(items, exclude=exclude_patients), **checks)


def images_of_pairs(items: Sequence[Mapping], modalities: Sequence[str] | None = None) -> list[dict]:
    """Turn registered images of a patient into items of one ``image`` each; ``modalities`` to keep, all by default.

    ValueError if nothing is left, or a modality is not registered.
    """
    wanted = {get_modality(name).name for name in modalities or REGISTRY}
    images = []
    for item in items:
        shared = {key: value for key, value in item.items() if key not in REGISTRY}
        pair = [{**shared, "image": item[key], "modality": key} for key in REGISTRY if key in item]
        images += [shared] if "image" in item else pair
    images = [image for image in images if image["modality"] in wanted]
    if not images:
        raise ValueError(f"none of the {len(items)} items has an image of {sorted(wanted)}")
    return images


def pairs_of(items: Sequence[Mapping], modalities: Sequence[str] = ("ct", "mr")) -> list[dict]:
    """Items that have a registered image of each of ``modalities``; ValueError if there are none."""
    pairs = [dict(item) for item in items if all(name in item for name in modalities)]
    if not pairs:
        raise ValueError(f"none of the {len(items)} items has registered images of {list(modalities)}")
    return pairs


def two_images(items: Sequence[Mapping], modalities: Sequence[str] | None = None) -> list[dict]:
    """Items with the images of both views, ``first`` and ``second``, and their modalities as a list.

    Registered images ``ct`` and ``mr`` are the two of a pair, if both are among ``modalities`` (all by default); any
    other image is both views of its own. ValueError as in :func:`images_of_pairs`.
    """
    found = []
    images_of_pairs(items, modalities)  # something is left, and the names are known
    wanted = {get_modality(name).name for name in modalities or REGISTRY}
    for item in items:
        shared = {key: value for key, value in item.items() if key not in (*REGISTRY, "image")}
        images = (image for image in images_of_pairs([item]) if image["modality"] in wanted)
        views = [(image["image"], image["image"], [image["modality"]] * 2) for image in images]
        if {"ct", "mr"} <= wanted & set(item):
            views = [(item["ct"], item["mr"], ["ct", "mr"])]
        found += [{**shared, "first": first, "second": second, "modality": names} for first, second, names in views]
    return found
