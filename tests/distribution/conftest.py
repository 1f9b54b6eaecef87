"""Small weights for each bundle, the packages built from them, and MONAI's command line on a package."""

import os
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
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
    network = SwinFUSEPretrainer(1, roi_size=ROI, feature_size=12, window_size=4, mode="self", dense_size=64)
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


def run_python(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run an interpreter in a folder, without the paths to our code that the tests were given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)


def run_bundle(python: Sequence[str | Path], folder: Path, action: str, config: str, **settings: Any) -> None:
    """`monai.bundle run` in a package's own folder; ``python`` are the words before the name of the command."""
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    done = run_python(*python, "run", action, "--config_file", f"configs/{config}", *options, folder=folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def segmented(output: Path) -> nib.Nifti1Image:
    """The one segmentation in a folder; one label everywhere would agree with any weights."""
    (file,) = output.rglob("*seg*.nii.gz")
    labels = nib.load(file)
    assert len(np.unique(np.asarray(labels.dataobj))) > 1
    return labels


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


@pytest.fixture
def unpacked(package: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A bundle's small package out of its zip, to run, to spoil or to complete."""

    def unpack(bundle: str) -> Path:
        with zipfile.ZipFile(package(bundle)) as archive:
            archive.extractall(tmp_path)
        return tmp_path / bundle

    return unpack
