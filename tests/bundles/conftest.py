"""Small data sets in the layouts of the bundles, and a way to run a workflow in the test's own process."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

CONFIGS = Path(__file__).parents[2] / "bundles"

#: A network and a region small enough for one step in under a second; one axis of 64 keeps instance norm defined.
TINY: dict[str, Any] = {
    "roi_size": [64, 32, 32],
    "feature_size": 12,
    "window_size": 4,
    "use_checkpoint": False,
    "num_workers": 0,
    "max_epochs": 1,
    "val_interval": 1,
    "warmup_epochs": 1,
    "batch_size": 2,
    "views": 1,
    "overlap": 0.0,
    "device": "$torch.device('cpu')",
}

#: Pre-training turns sub-volumes in the plane of the first two axes, which are equal therefore.
PRETRAINED_ROI = [32, 32, 64]


#: http://medicaldecathlon.com and the tasks' own dataset.json (Antonelli et al., Nature Communications 13, 4128, 2022).
DECATHLON: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Task01_BrainTumour": (("FLAIR", "T1w", "t1gd", "T2w"), ("edema", "non-enhancing tumor", "enhancing tumour")),
    "Task02_Heart": (("MRI",), ("left atrium",)),
    "Task03_Liver": (("CT",), ("liver", "cancer")),
    "Task04_Hippocampus": (("MRI",), ("Anterior", "Posterior")),
    "Task05_Prostate": (("T2", "ADC"), ("PZ", "TZ")),
    "Task06_Lung": (("CT",), ("cancer",)),
    "Task07_Pancreas": (("CT",), ("pancreas", "cancer")),
    "Task08_HepaticVessel": (("CT",), ("Vessel", "Tumour")),
    "Task09_Spleen": (("CT",), ("spleen",)),
    "Task10_Colon": (("CT",), ("colon cancer primaries",)),
}


def configs(bundle: str, *names: str) -> list[str]:
    """Paths of a bundle's configuration files; an absolute path stays what it is."""
    return [str(CONFIGS / bundle / "configs" / name) for name in names]


def parse(bundle: str, *names: str, **changes: Any) -> ConfigParser:
    """A bundle's configuration with some values changed, of which nothing has been run."""
    parser = ConfigParser()
    parser.read_config(configs(bundle, *names))
    parser.update({key: str(value) if isinstance(value, Path) else value for key, value in changes.items()})
    return parser


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (X, Y, Z[, C]) with its affine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def write_msd_task(
    root: Path,
    name: str = "Task90_Toy",
    channels: Sequence[str] = ("MRI",),
    labels: Sequence[str] = ("box",),
    *,
    cases: int = 4,
    shape: tuple[int, int, int] = (40, 36, 30),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    seed: int = 0,
) -> Path:
    """A task in the Decathlon's layout whose structures are bright boxes, one for each label."""
    generator = np.random.default_rng(seed)
    folder = root / name
    affine = np.diag([*spacing, 1.0])
    training = []
    for case in range(cases):
        label = np.zeros(shape, np.uint8)
        for value in range(1, len(labels) + 1):
            start = [int(generator.integers(3, size - 14)) for size in shape]
            label[start[0] : start[0] + 10, start[1] : start[1] + 10, start[2] : start[2] + 10] = value
        base = generator.normal(0, 20, shape) + 100 * label
        image = np.stack([base + 10 * number for number in range(len(channels))], axis=-1)
        image = image[..., 0] if len(channels) == 1 else image
        stem = f"case_{case:03d}.nii.gz"
        write_nifti(folder / "imagesTr" / stem, image.astype(np.int16), affine)
        write_nifti(folder / "labelsTr" / stem, label, affine)
        training.append({"image": f"./imagesTr/{stem}", "label": f"./labelsTr/{stem}"})
    content = {
        "name": name.split("_")[-1],
        "modality": {str(number): channel for number, channel in enumerate(channels)},
        "labels": {"0": "background", **{str(number + 1): label for number, label in enumerate(labels)}},
        "numTraining": cases,
        "training": training,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def few_of(source: Path, target: Path, cases: Sequence[int]) -> Path:
    """A copy of some cases of an MSD task."""
    content = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    content["training"] = [content["training"][number] for number in cases]
    for entry in content["training"]:
        for key in ("image", "label"):
            destination = target / entry[key]
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / entry[key], destination)
    (target / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return target


def write_brats(root: Path, *, cases: int = 2, shape: tuple[int, int, int] = (70, 60, 50), seed: int = 0) -> Path:
    """Patients in BraTS21's layout: a brain of ones in empty space, and three nested boxes of tumour."""
    generator = np.random.default_rng(seed)
    for case in range(cases):
        name = f"BraTS2021_{case:05d}"
        label = np.zeros(shape, np.uint8)
        start = [int(generator.integers(15, size - 32)) for size in shape]
        for value, margin in ((2, 0), (1, 3), (4, 5)):
            label[tuple(slice(first + margin, first + 18 - margin) for first in start)] = value
        for number, sequence in enumerate(("flair", "t1ce", "t1", "t2")):
            image = np.zeros(shape)
            inside = tuple(slice(8, size - 8) for size in shape)
            image[inside] = generator.normal(300, 20, label[inside].shape) + 50 * number * label[inside]
            write_nifti(root / name / f"{name}_{sequence}.nii.gz", image.astype(np.int16), np.eye(4))
        write_nifti(root / name / f"{name}_seg.nii.gz", label, np.eye(4))
    return root


def write_synthrad(root: Path, *, cases: int = 4, seed: int = 0) -> Path:
    """Patients in SynthRAD's layout: a CT in Hounsfield units and an MRI of the same ellipsoids."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 24, 48)], indexing="ij"))
    for number in range(cases):
        folder = root / "Task1" / "pelvis" / f"1PA{number:03d}"
        body = (grid**2).sum(0) < 1
        bone = ((grid - generator.uniform(-0.4, 0.4, (3, 1, 1, 1))) ** 2).sum(0) < 0.1
        ct = np.where(bone, 700, np.where(body, 40, -1000)) + generator.normal(0, 10, body.shape)
        mr = np.where(bone, 50, np.where(body, 400, 0)) + generator.normal(0, 10, body.shape)
        for name, volume in (("ct", ct), ("mr", mr), ("mask", body)):
            write_nifti(folder / f"{name}.nii.gz", volume.astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
    return root


def write_data(bundle: str, root: Path, **options: Any) -> Path:
    """A data set for the training of a bundle, of some ``cases`` and with a ``seed``."""
    writers = {"pretrain": write_synthrad, "finetune_msd": write_msd_task, "finetune_brats": write_brats}
    return writers[bundle](root / bundle, **options)


def run_workflow(bundle: str, files: Sequence[str], run_id: str, **overrides: Any) -> ConfigWorkflow:
    """Run `files` of `bundle` with overrides, in this process."""
    overrides = {key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()}
    options = {"run_id": run_id, "logging_file": False, "workflow_type": None}
    workflow = ConfigWorkflow(configs(bundle, *files), **options, **overrides)
    logging.getLogger("ignite").setLevel(logging.WARNING)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def pretrain_two_steps(folder: Path, *overlays: str) -> Path:
    """The run folder of two steps of the pre-training bundle, whose model fits a region of :data:`PRETRAINED_ROI`."""
    options: dict[str, Any] = {"dataset_dir": write_synthrad(folder / "data"), "run_dir": folder / "run"}
    options |= {key: TINY[key] for key in ("feature_size", "window_size", "num_workers", "max_epochs", "val_interval")}
    options |= {"roi_size": PRETRAINED_ROI, "spacing": [4.0, 4.0, 4.0], "epoch_length": 2, "warmup_iterations": 1}
    run_workflow("pretrain", ["train.json", *overlays], "training", **options, batch_size=2)
    return folder / "run"


@pytest.fixture(scope="session")
def pretrained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of :func:`pretrain_two_steps` with the bundle's own settings."""
    return pretrain_two_steps(tmp_path_factory.mktemp("pretrained"))


@pytest.fixture
def run_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """:func:`run_workflow` from a working directory that is not the bundle's."""
    monkeypatch.chdir(tmp_path)
    return run_workflow


@pytest.fixture
def segment(run_bundle: Callable[..., ConfigWorkflow]) -> Callable[..., ConfigWorkflow]:
    """Segment `images` by the model in `run_dir` with a bundle's inference.json, label maps into `output_dir`."""

    def run(bundle: str, images: Path, run_dir: Path, output_dir: Path, **overrides: Any) -> ConfigWorkflow:
        paths = {"dataset_dir": str(images), "run_dir": str(run_dir), "output_dir": str(output_dir)}
        device = "$torch.device('cpu')"
        return run_bundle(bundle, ["inference.json"], "inference", **paths, overlap=0.0, device=device, **overrides)

    return run
