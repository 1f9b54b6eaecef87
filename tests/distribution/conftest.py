"""Small weights for each bundle, and the packages built from them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from swinfuse_components.distribution import build_package
from swinfuse_components.networks import SwinFUSEPretrainer

from ..models import BRATS, write_model

BUNDLES = ("pretrain", "finetune_msd", "finetune_brats", "ood_eval")
ROI = [64, 64, 64]

# what differs from the model of the other tests
MODEL: dict[str, Any] = {
    "name": "Hippocampus",
    "model_name": "SwinFUSE",
    "modality": "mr",
    "channels": ["MRI"],
    "labels": {"0": "background", "1": "anterior", "2": "posterior"},
    "regions": {"anterior": [1], "posterior": [2]},
    "spacing": [1.0, 1.0, 1.0],
    "ct_window": [-1000, 1000],
    "roi_size": ROI,
    "start": "scratch",
}


def make_weights(bundle: str, folder: Path) -> Path:
    """A checkpoint as training leaves it, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if bundle != "pretrain":
        return write_model(folder, **(MODEL | BRATS if bundle == "finetune_brats" else MODEL)) / "model.pt"
    torch.manual_seed(0)
    network = SwinFUSEPretrainer(1, roi_size=ROI, feature_size=12, window_size=4)
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    return folder / "model.pt"


def make_package(repository: Path, bundle: str, folder: Path, **options: Any) -> Path:
    """Build a small package of a bundle; the path of its zip."""
    if bundle == "pretrain":
        size = {"roi_size": 64, "feature_size": 12, "window_size": 4}
        data_format = {
            f"network_data_format::{side}::{name}::spatial_shape": ROI
            for side, name in (("inputs", "image"), ("outputs", "pred"))
        }
        options = {"settings": size, "metadata": data_format, **options}
    options.setdefault("url_prefix", "https://example.org/weights")
    weights = make_weights(bundle, folder / "weights" / bundle)
    return build_package(repository / "bundles" / bundle, folder / "packages", weights=weights, **options)


@pytest.fixture(scope="session")
def package(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Zip of a bundle's small package, each built once a session; the unpacked folder lies beside it."""
    folder = tmp_path_factory.mktemp("distribution")
    return cache(lambda bundle: make_package(repository, bundle, folder))


@pytest.fixture(scope="session")
def installed_package(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a small package that leans on the installed library instead of carrying its code."""
    folder = tmp_path_factory.mktemp("installed")
    return cache(lambda bundle: make_package(repository, bundle, folder, vendor=False).parent / bundle)
