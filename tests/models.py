"""What tests of several rooms share: a model as fine-tuning leaves it, small and untrained, and tables as text."""

import csv
import json
from pathlib import Path
from typing import Any

import torch

from swinfuse_components.finetuning.description import GENERIC_DESCRIPTION
from swinfuse_components.networks import SwinFUSE

#: One CT channel, one structure; one axis of 64 keeps instance norm defined.
DESCRIPTION: dict[str, Any] = GENERIC_DESCRIPTION | {
    "name": "BoxCT",
    "labels": {"0": "background", "1": "box"},
    "spacing": [3.0, 3.0, 3.0],
    "ct_window": [-200.0, 200.0],
    "roi_size": [64, 32, 32],
    "feature_size": 12,
    "window_size": 4,
}
#: What differs for the four sequences of BraTS21 and its three nested regions.
BRATS: dict[str, Any] = {
    "name": "BraTS21",
    "modality": "mr",
    "channels": ["FLAIR", "T1ce", "T1", "T2"],
    "labels": {"0": "background", "1": "necrotic tumour core", "2": "peritumoral oedema", "4": "enhancing tumour"},
    "regions": {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]},
    "mr_nonzero": True,
    "sigmoid": True,
}


def write_model(folder: Path, **described: Any) -> Path:
    """Description and random weights (seeded) in a folder that need not exist; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = DESCRIPTION | described
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    torch.manual_seed(0)
    network = SwinFUSE(
        len(model["channels"]),
        len(model["regions"] if model.get("sigmoid") else model["labels"]),
        roi_size=model["roi_size"],
        feature_size=model["feature_size"],
        window_size=model["window_size"],
        dim=model["dim"],
    )
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    """A table as text, so that equal means equal to the last digit."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
