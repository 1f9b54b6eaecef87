"""What a segmentation model is for, in a small JSON file beside its weights.

Training knows the modality, channels and classes from the data set and its settings from the configuration; whoever
loads ``model.pt`` later has neither. ``model.json`` carries them over, so that inference rebuilds the same network and
the same preprocessing from the model's folder alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import describe_task, get_modality
from ..engines.files import atomic_write

__all__ = ["GENERIC_DESCRIPTION", "read_description", "write_description"]

logger = logging.getLogger(__name__)

REQUIRED_KEYS = ("name", "modality", "channels", "labels")
#: What a model is taken for where no file says otherwise: one CT channel in, one structure out, the default network.
GENERIC_DESCRIPTION: dict[str, Any] = {
    "name": "unnamed task",
    "modality": "ct",
    "channels": ["CT"],
    "labels": {"0": "background", "1": "foreground"},
    "spacing": [1.0, 1.0, 1.0],
    "ct_window": [-1000, 1000],
    "mr_nonzero": False,
    "roi_size": [96, 96, 96],
    "feature_size": 48,
    "window_size": 7,
    "dim": "swinfuse",
    "dim_options": None,
    "network_options": {"norm_name": "instance", "downsample": "merging"},
}


def read_description(
    paths: Sequence[str | os.PathLike[str]],
    default: Mapping[str, Any] | None = None,
    *,
    modality: str | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read the first of ``paths`` that exists; keys that it does not hold are taken from ``default``.

    Args:
        paths: candidates in order of preference, each a ``model.json`` as :func:`write_description` writes it or a
            labelled data set, see :func:`~swinfuse_components.data.describe_task`.
        default: :data:`GENERIC_DESCRIPTION` unless given.
        modality: of the images, where the data set does not tell it or they are of another than the model's.

    Returns:
        a dictionary with the keys of ``default``, among them ``name``, ``modality`` (``"ct"`` or ``"mr"``),
        ``channels`` (list of names, one per input channel) and ``labels`` (``{"0": "background", "1": name, …}``).
        Without any file this is ``default``, and the log says so.

    Raises:
        ValueError: if a file is not JSON or lacks one of the keys.
    """
    base = dict(GENERIC_DESCRIPTION if default is None else default)
    for path in map(Path, paths):
        if path.name == "model.json":
            found = _read_json(path) if path.is_file() else None
        else:
            found = _facts(path, modality)
        if found is not None:
            return {**base, **found, **({"modality": get_modality(modality).name} if modality else {})}
    logger.warning(
        "no description of the model at %s: taking %d channel(s) %s and the classes %s",
        " or ".join(str(path) for path in paths),
        len(base["channels"]),
        base["channels"],
        base["labels"],
    )
    return base


def _facts(path: Path, modality: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a labelled data set says of itself; None if there is none."""
    try:
        task = describe_task(path, modality=modality)
    except (FileNotFoundError, NotADirectoryError):  # a single image, or a folder of images
        return None
    return {
        "name": task.name,
        "modality": task.modality,
        "channels": list(task.channels),
        "labels": {str(value): name for value, name in task.labels.items()},
        **({"regions": task.regions} if task.regions else {}),
        **({"codes": task.codes} if task.codes else {}),
        "spacing": None,  # not in the data set's files: see fingerprint()
        "ct_window": None,
    }


def write_description(path: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
    """Write ``description`` as JSON, replacing the file in one step so that a reader never sees half of it.

    Raises:
        ValueError: if ``name``, ``modality``, ``channels`` or ``labels`` is missing.
    """
    target = Path(path)
    _check(description, target)
    with atomic_write(target) as file:
        file.write(json.dumps(description, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object with 'modality', 'labels', …")
    _check(content, path)
    return content


def _check(description: Mapping[str, Any], path: Path) -> None:
    missing = [key for key in REQUIRED_KEYS if key not in description]
    if missing:
        raise ValueError(f"{path}: missing {missing}, found {sorted(description)}")
