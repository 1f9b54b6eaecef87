"""What is refused by every training: through the command line, in one sentence, before anything is read or written."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ..models import write_model
from .small_runs import SmallBundle, command, message_of

Make = Callable[[Path], dict[str, Any]]


def edit(task: Path, **changes: Any) -> dict[str, Any]:
    """Change entries of a task's ``dataset.json``; returns the rest."""
    content = json.loads((task / "dataset.json").read_text(encoding="utf-8"))
    (task / "dataset.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return content


def folds(task: Path, entries: list[dict[str, Any]]) -> dict[str, Any]:
    (task / "folds.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return {"fold_file": task / "folds.json"}


def without_labels(task: Path) -> dict[str, Any]:
    entries = edit(task)["training"]
    return folds(task, [{"image": entry["image"], "fold": n % 2} for n, entry in enumerate(entries)])


def image_under_two_names(task: Path) -> dict[str, Any]:
    entries = [{**entry, "fold": 0} for entry in edit(task)["training"]]
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(task / folder / "case_000.nii.gz", task / folder / "other.nii.gz")
    return folds(task, [*entries, {**{k: f"{k}sTr/other.nii.gz" for k in ("image", "label")}, "fold": 1}])


def of_a_damaged_pretraining(task: Path) -> dict[str, Any]:
    model = write_model(task.parent / "pretrained")
    (model / "patients.json").write_text('{"training": 3', encoding="utf-8")
    return {"start": "pretrained", "pretrained_checkpoint": model / "model.pt"}


def rewritten(change: Callable[[np.ndarray], np.ndarray], spacing: float = 1.0) -> Make:
    def make(task: Path) -> dict[str, Any]:
        for folder in ("imagesTr", "labelsTr"):
            path = task / folder / "case_001.nii.gz"
            values = np.asarray(nib.load(path).dataobj)
            values = change(values.astype(np.float64)) if folder == "imagesTr" else values
            nib.save(nib.Nifti1Image(values, np.diag([spacing] * 3 + [1])), path)
        return {}

    return make


def two_classes_of_one_name(task: Path) -> dict[str, Any]:
    edit(task, labels={"0": "background", "1": "box", "2": "box"})
    return {}


MSD: dict[str, tuple[Make, str]] = {
    "one voxel at the bottom": (lambda task: {"roi_size": [32, 32, 32]}, "roi_size: found (32, 32, 32), expected 64"),
    "window beyond the region": (lambda task: {"window_size": 64}, "window_size"),
    "no such device": (lambda task: {"device": "cuda:63"}, "device is cuda:63, which is not to be had here"),
    "unknown device": (lambda task: {"device": "gpu"}, "device is gpu"),
    "no run_dir": (lambda task: {"run_dir": ""}, "run_dir is '': expected a path"),
    "data sets in place of one": (lambda task: {"dataset_dir": [str(task)]}, "dataset_dir is ["),
    "run_dir in the data": (lambda task: {"run_dir": task / "run"}, "lies in the data set"),
    "fold file without labels": (without_labels, "expected ['image', 'label']"),
    "one image in two folds": (image_under_two_names, "other.nii.gz: the same image as"),
    "a volume of 30 mm": (rewritten(lambda values: values, 300.0), "case_001.nii.gz: (40, 36, 30) voxels of [300.0"),
    "beyond 32 bits": (rewritten(lambda values: values * 1e37), "case_001.nii.gz: values from"),
    "two classes of one name": (two_classes_of_one_name, "several labels are called box"),
    "a region of no class": (lambda task: {"regions": {"box": [9]}}, "'box' is [9], expected some of"),
    "a spacing of 0": (lambda task: {"spacing": [1.0, 0.0, 1.0]}, "spacing is 0.0: expected millimetres"),
    "two spacings": (lambda task: {"spacing": [1.0, 1.0]}, "expected one number for each of the three axes"),
    "a fourth axis": (lambda task: {"flip_axes": [3]}, "flip_axes is 3: expected axes 0, 1 and 2"),
    "no epochs, deep down": (lambda task: {"train::trainer::max_epochs": 0}, "max_epochs is 0: expected 1 or more"),
    "no regular expression": (lambda task: {"patient_pattern": "("}, "missing ), unterminated subpattern"),
    "no such transform": (lambda task: {"loss": {"_target_": "monai.losses.Nothing"}}, "monai.losses.Nothing"),
    "a damaged record": (of_a_damaged_pretraining, "patients.json' is not valid JSON"),
    "an unknown fold": (lambda task: {"fold": 7}, "fold 7 cannot be held out"),
}
PRETRAIN: dict[str, tuple[dict[str, Any], str]] = {
    "all weights 0": (
        {f"{name}_weight": 0.0 for name in ("inpainting", "rotation", "contrastive", "density", "dense")},
        "all weights are 0",
    ),
    "a negative weight": ({"dense_weight": -1.0}, "dense_weight is -1: only density_weight may be negative"),
    "one place": ({"dense_options": {"places": 1}}, "places is 1: expected a whole number of 2 or more"),
    "a typo in exclude_patients": ({"exclude_patients": ["1PA0001"]}, "no patient is called '1PA0001'"),
    "no iteration": ({"epoch_length": 0}, "epoch_length is 0: expected 1 or more"),
    "too large a grid": ({"spacing": [0.02, 0.02, 0.02]}, "more than can be held"),
}


def refused(bundle: SmallBundle, tmp_path: Path, in_child: Any = None, **changes: Any) -> str:
    options = {**bundle.options, "run_dir": tmp_path / "run", **changes}
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    run = command(tmp_path / "log", "training", bundle.config, in_child=in_child, **options)
    message = message_of(run)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before - {tmp_path / "log"}
    assert {path.name for path in written if "tensorboard" not in path.parts} <= {".lock"}
    return message


@pytest.mark.parametrize("name", MSD)
def test_refused_by_fine_tuning(name: str, tmp_path: Path) -> None:
    make, expected = MSD[name]
    bundle = SmallBundle("finetune_msd", tmp_path / "data")
    assert expected in refused(bundle, tmp_path, **make(bundle.dataset))


@pytest.mark.parametrize("name", PRETRAIN)
def test_refused_by_pretraining(name: str, tmp_path: Path) -> None:
    changes, expected = PRETRAIN[name]
    assert expected in refused(SmallBundle("pretrain", tmp_path / "data"), tmp_path, **changes)


@pytest.mark.parametrize("bundle", ["pretrain", "finetune_msd"])
def test_too_few_open_files_for_the_workers(bundle: str, tmp_path: Path) -> None:
    few = (50, 50)
    message = refused(
        SmallBundle(bundle, tmp_path / "data"),
        tmp_path,
        in_child=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few),
        num_workers=4,
    )
    assert "num_workers 4 needs 192 open files, this user may have 50" in message


def test_one_bright_voxel_leaves_the_others_their_contrast(tmp_path: Path) -> None:
    from swinfuse_components.finetuning.description import build_preprocessing

    from ..models import DESCRIPTION

    def spoil(values: np.ndarray) -> np.ndarray:
        values[5, 5, 5] = 1e9
        return values

    bundle = SmallBundle("finetune_msd", tmp_path / "data")
    steps = build_preprocessing({**DESCRIPTION, "modality": "mr", "spacing": [1.0, 1.0, 1.0]})
    image = bundle.dataset / "imagesTr" / "case_001.nii.gz"
    before = steps({"image": str(image)})["image"]
    rewritten(spoil)(bundle.dataset)
    after = steps({"image": str(image)})["image"]
    assert before.shape == after.shape and float((before - after).abs().mean()) < 1e-3
