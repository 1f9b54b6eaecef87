"""Each zip runs from its own folder where nothing is installed but what its metadata asks for.

Slow: the environment (PyTorch and all, 2 GB) takes minutes to make. SWINFUSE_PACKAGE_VENV names a place to make it in
and to keep it, SWINFUSE_PACKAGE_PYTHON an interpreter to make it with, such as the Python 3.10 of the Model Zoo.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ..bundles.conftest import few_of
from ..models import read_rows
from .conftest import BUNDLES, run_bundle, run_python, segmented
from .test_zoo import versions_of

pytestmark = pytest.mark.slow
MONAI = ("-m", "monai.bundle")


def required(folder: Path) -> set[str]:
    """What a package's metadata asks for, as pip takes it."""
    return {f"{name}=={version}" for name, version in versions_of(folder).items()}


@pytest.fixture(scope="session")
def fresh_python(package: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a new environment with the versions that the four packages name, and without this library."""
    wanted = sorted(set().union(*(required(package(bundle).parent / bundle) for bundle in BUNDLES)))
    assert len({name.split("==")[0] for name in wanted}) == len(wanted), f"the packages disagree: {wanted}"
    given = os.environ.get("SWINFUSE_PACKAGE_VENV")
    place = Path(given) if given else tmp_path_factory.mktemp("environment") / "venv"
    python, stamp = place / "bin" / "python", place / "installed.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8").split() != wanted:
        interpreter = os.environ.get("SWINFUSE_PACKAGE_PYTHON", sys.executable)
        made = run_python(interpreter, "-m", "venv", place)
        if made.returncode:
            pytest.skip(f"no environment with pip can be made here: {made.stdout[-300:]}{made.stderr[-300:]}")
        installed = run_python(python, "-m", "pip", "install", "--quiet", *wanted)
        assert installed.returncode == 0, installed.stderr[-3000:]
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    absent = run_python(python, "-c", "import swinfuse_components", folder=place)
    assert absent.returncode and "ModuleNotFoundError" in absent.stderr, "the library is in the new environment"
    return python


def check_grid(output: Path, image: Path) -> None:
    labels, volume = segmented(output), nib.load(image)
    assert labels.shape == volume.shape[:3]
    np.testing.assert_allclose(labels.affine, volume.affine, atol=1e-4)


def hippocampi(swinfuse_data: Path, folder: Path, count: int) -> Path:
    """The first cases of a real task, as a task of its own."""
    return few_of(swinfuse_data / "MSD_like" / "Task04_Hippocampus", folder, range(count))


def test_finetune_msd_segments_an_mri(
    fresh_python: Path, unpacked: Callable[[str], Path], swinfuse_data: Path, tmp_path: Path
) -> None:
    folder, images = unpacked("finetune_msd"), hippocampi(swinfuse_data, tmp_path / "task", 1) / "imagesTr"
    places = {"dataset_dir": images, "output_dir": tmp_path / "out"}
    run_bundle([fresh_python, *MONAI], folder, "inference", "inference.json", **places)
    check_grid(tmp_path / "out", *images.iterdir())


def test_finetune_brats_segments_four_sequences(
    fresh_python: Path, unpacked: Callable[[str], Path], swinfuse_data: Path, tmp_path: Path
) -> None:
    folder = unpacked("finetune_brats")
    case = sorted((swinfuse_data / "BraTS21_like").glob("BraTS2021_*"))[0]
    target = tmp_path / "data" / case.name
    target.mkdir(parents=True)
    for name in ("flair", "t1", "t1ce", "t2"):
        # the middle: a whole head is a hundred windows
        source = nib.load(case / f"{case.name}_{name}.nii.gz")
        middle = tuple(slice(size // 2 - 40, size // 2 + 40) for size in source.shape)
        nib.save(source.slicer[middle], target / f"{case.name}_{name}.nii.gz")
    places = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "out"}
    run_bundle([fresh_python, *MONAI], folder, "inference", "inference.json", **places)
    check_grid(tmp_path / "out", target / f"{case.name}_flair.nii.gz")


def test_ood_eval_scores_a_task(
    fresh_python: Path, unpacked: Callable[[str], Path], swinfuse_data: Path, tmp_path: Path
) -> None:
    folder, task = unpacked("ood_eval"), hippocampi(swinfuse_data, tmp_path / "task", 2)
    places = {"model_dir": folder / "models", "dataset_dir": task, "output_dir": tmp_path / "out"}
    run_bundle([fresh_python, *MONAI], folder, "evaluating", "evaluate.json", **places)
    rows = read_rows(tmp_path / "out" / "cases.csv")
    assert {row["case"] for row in rows if row["model"] == "SwinFUSE"} == {
        path.name.removesuffix(".nii.gz") for path in (task / "imagesTr").iterdir()
    }


def test_pretrain_takes_three_steps(
    fresh_python: Path, unpacked: Callable[[str], Path], swinfuse_data: Path, tmp_path: Path
) -> None:
    folder = unpacked("pretrain")
    (region,) = (swinfuse_data / "SynthRAD_like" / "Task1").iterdir()
    for patient in sorted(region.iterdir())[:3]:
        shutil.copytree(patient, tmp_path / "data" / "Task1" / region.name / patient.name)
    steps = {"epoch_length": 3, "max_epochs": 1, "val_interval": 1}
    small = {"batch_size": 1, "spacing": "[3,3,3]", "num_workers": 0}
    places = {"dataset_dir": tmp_path / "data", "run_dir": tmp_path / "run"}
    run_bundle([fresh_python, *MONAI], folder, "training", "train.json", **places, **steps, **small)
    assert (tmp_path / "run" / "model.pt").is_file()
    assert [row["iteration"] for row in read_rows(tmp_path / "run" / "losses.csv")] == ["1", "2", "3"]
