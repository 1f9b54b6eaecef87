"""Ensembles of trained models, and the check that no scored patient was trained on."""

import copy
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoints import load_weights
from ..data import same_patients
from .description import GENERIC_DESCRIPTION, patients_of, read_description

logger = logging.getLogger(__name__)

_PATIENTS = ("training_patients", "pretraining_patients")
#: what members of an ensemble may differ in
_OWN = {"name", "histogram", "largest_component", *_PATIENTS}


def common_description(model_dirs: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The description that the models of an ensemble share, from the ``model.json`` of each folder.

    Training patients are those of all members, the histogram is the mean of theirs, and the largest component is kept
    where all of them do.

    Raises:
        ValueError: if there is no model, one twice, or two that differ in network or preprocessing; both are named.
        FileNotFoundError: if a folder has no ``model.json``.
    """
    if not model_dirs:
        raise ValueError("an ensemble needs at least one model folder")
    if len(set(map(str, model_dirs))) < len(model_dirs):
        raise ValueError(f"an ensemble needs different models, found {', '.join(map(str, model_dirs))}")
    paths = [Path(folder) / "model.json" for folder in model_dirs]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: is {path.parent} the folder of a finished training?")
    first, *others = descriptions = [read_description([path]) for path in paths]
    for folder, other in zip(model_dirs[1:], others, strict=True):
        for key in sorted(GENERIC_DESCRIPTION.keys() - _OWN):
            if first[key] != other[key]:
                raise ValueError(
                    f"models that differ in '{key}' cannot share one ensemble: {model_dirs[0]} has {first[key]}, "
                    f"{folder} has {other[key]}"
                )
    histograms = [one["histogram"] for one in descriptions]
    return {
        **first,
        "histogram": np.mean(histograms, axis=0).tolist() if all(histograms) else None,
        "largest_component": sorted(set.intersection(*(set(one["largest_component"]) for one in descriptions))),
        **{key: sorted({name for one in descriptions for name in one[key]}) for key in _PATIENTS},
    }


def load_ensemble(
    network: nn.Module, checkpoints: Iterable[str | os.PathLike[str]], device: torch.device | str = "cpu"
) -> list[nn.Module]:
    """A copy of ``network`` for each checkpoint, with all of its weights; anything less is an error."""
    return [load_weights(copy.deepcopy(network), path).to(device).eval() for path in checkpoints]


def require_unseen(
    items: Sequence[Mapping[str, Any]], description: Mapping[str, Any], allow_seen: bool = False
) -> Sequence[Mapping[str, Any]]:
    """``items`` to be scored; ValueError if they hold patients of the model's training or pre-training.

    They are known whatever channel their names end in. ``allow_seen`` warns of them.
    """
    kinds = {str(item["modality"]) for item in items if item.get("modality")} - {str(description.get("modality"))}
    if kinds and description.get("modality"):
        told = f"the images are {', '.join(sorted(kinds))}, the model was trained on {description['modality']}"
        logger.warning("%s: they are scaled as the latter", told)
    known = [name for key in _PATIENTS for name in description.get(key, [])]
    seen = sorted(same_patients(patients_of(items)) & same_patients(known))
    if seen:
        message = (
            f"{len(seen)} of {len(patients_of(items))} patients to be scored were used in training: "
            f"{', '.join(seen[:5])}{', …' if len(seen) > 5 else ''}"
        )
        if not allow_seen:
            raise ValueError(f"{message}. Use the held-out fold, other data, or --allow_seen True")
        logger.warning(message)
    return items
