"""The pre-training bundle end to end, on volumes of a few voxels made here."""

import json
import os
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from swinfuse_components import engines
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint
from swinfuse_components.losses import intensity_histograms, partner_accuracy

from ..models import read_rows
from .conftest import configs, parse, run_workflow, write_synthrad
from .small_runs import SMALL as SMALL_BUNDLES

SMALL: dict[str, Any] = {**SMALL_BUNDLES["pretrain"], "epoch_length": 3}
NO_VALIDATION = {"val_interval": 0}
OVERLAYS = sorted(
    {Path(path).stem for path in glob(*configs("pretrain", "*.yaml"))} - {"small", "cache_on_disk", "bfloat16"}
)


@pytest.fixture(scope="module")
def synthrad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients in SynthRAD's layout: a CT in Hounsfield units and an MRI of the same ellipsoids."""
    return write_synthrad(tmp_path_factory.mktemp("synthrad"))


def test_a_histogram_does_not_find_the_other_view() -> None:
    """By default and with curves; in the paper's setting it does: both views are one crop with its intensities."""
    draw = np.random.RandomState(0)
    images = [
        torch.tensor(draw.beta(*draw.uniform(0.5, 5, 2), (1, 32, 32, 32)), dtype=torch.float32) for _ in range(16)
    ]
    found = {}
    for overlay in ("train.json", "pretext_tasks.yaml", "paper.yaml"):
        make = parse("pretrain", "train.json", overlay).get_parsed_content("train::two_views")
        make.set_random_state(0)
        views = [make({"image": image}) for image in images]
        histograms = [intensity_histograms(torch.stack([view[key] for view in views])) for key in ("view_i", "view_j")]
        found[overlay] = float(partner_accuracy(*histograms))
    assert found["train.json"] < 0.4 and found["pretext_tasks.yaml"] < 0.4 and found["paper.yaml"] > 0.9


def train(synthrad: Path, run_dir: Path, *overlays: str, **options: Any) -> Path:
    given = {"dataset_dir": synthrad, "run_dir": run_dir, **SMALL, **options}
    run_workflow("pretrain", ["train.json", *overlays], "training", **given)
    return run_dir


@pytest.mark.slow
def test_volumes_from_the_disk_train_as_those_in_memory(synthrad: Path, tmp_path: Path) -> None:
    in_memory = tmp_path / "memory.yaml"
    cached = "{_target_: CacheDataset, data: '@train_items', transform: '@train::preprocessing'}"
    in_memory.write_text(f"train::dataset: {cached}\n", encoding="utf-8")
    settings = {**NO_VALIDATION, "batch_size": 1, "cache_dir": str(tmp_path / "cache")}
    writing, reading, memory = (
        train(synthrad, tmp_path / name, "cache_on_disk.yaml", *files, **settings) / "losses.csv"
        for name, files in {"writing": [], "reading": [], "memory": [str(in_memory)]}.items()
    )
    assert len(read_rows(writing)) == 3 and read_rows(writing) == read_rows(reading) == read_rows(memory)
    files = list((tmp_path / "cache").iterdir())
    assert files and all(torch.load(file, weights_only=True).keys() == {"image"} for file in files)
    options = {"dataset_dir": synthrad, **SMALL, **settings, "crops": 3}
    parser = parse("pretrain", "train.json", "cache_on_disk.yaml", **options)
    assert len(parser.get_parsed_content("train::dataset")[0]) == 3


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_is_thin_and_explained(name: str) -> None:
    base, overlay = (Path(path) for path in configs("pretrain", "train.json", f"{name}.yaml"))
    text = overlay.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 20 and text.startswith("# ")
    parser = parse("pretrain", base.name, overlay.name)
    for key, value in yaml.safe_load(text).items():
        assert key.partition("::")[0] in json.loads(base.read_bytes()), "a misspelt key would change nothing"
        assert parser[key] == value


# those that change the network or the views most; the documented commands run others
FAST = ("paper", "mind", "dim_released", "dim_patches")
# the others vary the paper's tasks
OF_THE_DEFAULT = ("paper", "pretext_tasks", "dense_pairs", "mind", "synthetic")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in OVERLAYS]
)
def test_overlay_runs_three_steps(synthrad: Path, tmp_path: Path, name: str) -> None:
    overlays = [*([] if name in OF_THE_DEFAULT else ["pretext_tasks.yaml"]), f"{name}.yaml"]
    # three heads of the released module divide the planes of 96 cubed, not those of 64
    size = {"roi_size": [32, 32, 96]} if name == "dim_released" else {}
    if name == "synthetic":
        few = "$data.synthetic_volumes(@run_dir + '/synthetic', 4, size=64, spacing=@spacing, ct_window=@ct_window)"
        synthrad = Path(few)  # the overlay's own expression, with fewer of them
    train(synthrad, tmp_path, *overlays, **NO_VALIDATION, **size)
    assert [row["iteration"] for row in checked_losses(tmp_path, *overlays)] == ["1", "2", "3"]


def checked_losses(run_dir: Path, *overlays: str) -> list[dict[str, str]]:
    """Rows of the losses of a run: finite, and the loss is the sum of the terms times their weights."""
    parser, table = parse("pretrain", "train.json", *overlays), read_rows(run_dir / "losses.csv")
    for row in table:
        assert all(np.isfinite(float(value)) for value in row.values())
        named = ("inpainting", "rotation", "contrastive", "density", "dense")
        weights = {term: parser[f"{term}_weight"] for term in named if term in row}
        weighted = {term: float(row[f"{term}_weighted"]) for term in weights}
        assert weighted == pytest.approx({term: weights[term] * float(row[term]) for term in weights})
        assert float(row["loss"]) == pytest.approx(sum(weighted.values()), rel=1e-5)
    return table


@pytest.mark.parametrize("size", [0, 64])
def test_the_dense_term_is_validated_where_the_network_has_its_head(size: int) -> None:
    metrics = parse("pretrain", "train.json", dense_size=size).get_parsed_content("validate::additional_metrics")
    assert ("val_dense" in metrics) == bool(size)


@pytest.fixture(scope="module")
def trained(synthrad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(synthrad, tmp_path_factory.mktemp("trained"), max_epochs=2)


def test_what_a_run_leaves_behind(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"model.pt", "losses.csv", "losses.png", "validation.csv", "configuration.json", "tensorboard"} <= names
    assert len(json.loads((trained / "patients.json").read_text())["training"]) == 3
    assert [path.name for path in checkpoints_of(trained)] == [
        "checkpoint_iteration=00000003.pt",
        "checkpoint_iteration=00000006.pt",
    ]
    assert len(read_rows(trained / "validation.csv")) == 2
    assert set(torch.load(trained / "model.pt", weights_only=True)) == {"model"}
    rates = [float(row["lr"]) for row in checked_losses(trained)]
    assert rates[0] == pytest.approx(4e-4 / 2) and max(rates) == pytest.approx(4e-4) and rates[-1] < 1e-4


def test_tensorboard_holds_every_term_and_the_slices(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    for term in ("inpainting", "rotation", "contrastive", "density", "dense"):
        assert {term, f"{term}_weighted", f"val_{term}"} <= scalars
    assert {"density_of_bound", "contrastive_of_bound", "loss", "val_loss"} <= scalars
    assert len(events.Tags()["images"]) == 3  # view, target, reconstruction


def test_configuration_of_a_run_runs_by_itself(trained: Path, tmp_path: Path) -> None:
    run_workflow("pretrain", [str(trained / "configuration.json")], "run", run_dir=tmp_path, max_epochs=1)
    first = read_rows(tmp_path / "losses.csv")
    assert first[0]["loss"] == read_rows(trained / "losses.csv")[0]["loss"]


def test_held_out_patients_are_never_trained_on(synthrad: Path, tmp_path: Path) -> None:
    parser = parse("pretrain", "train.json", dataset_dir=synthrad)
    train_patients, val_patients = (
        {item["patient"] for item in parser.get_parsed_content(name)} for name in ("train_items", "val_items")
    )
    assert train_patients and val_patients and not train_patients & val_patients
    assert len(train_patients | val_patients) == 4


def test_evaluation_repeats_the_validation_of_the_best_model(synthrad: Path, trained: Path, tmp_path: Path) -> None:
    folders = {"dataset_dir": synthrad, "run_dir": trained, "output_dir": tmp_path}
    run_workflow("pretrain", ["train.json", "evaluate.json"], "evaluating", **folders, **SMALL)
    best = min(float(row["val_loss"]) for row in read_rows(trained / "validation.csv"))
    found = dict(line.split(",") for line in (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines())
    assert float(found["val_loss"]) == pytest.approx(best, rel=1e-3)  # the density term samples anew


def test_inference_writes_reconstructions_on_the_grid_of_the_images(
    synthrad: Path, trained: Path, tmp_path: Path
) -> None:
    folders = {"dataset_dir": synthrad, "run_dir": trained, "output_dir": tmp_path}
    size = {key: SMALL[key] for key in ("roi_size", "feature_size", "window_size", "spacing", "num_workers")}
    run_workflow("pretrain", ["inference.json"], "inference", **folders, modalities=["ct"], **size)
    written = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(written) == 4
    image = nib.load(next(iter(sorted(synthrad.rglob("ct.nii.gz")))))
    reconstruction = nib.load(written[0])
    assert reconstruction.shape == image.shape
    assert np.allclose(reconstruction.affine, image.affine)


@pytest.mark.parametrize(("name", "kind"), [("train.json", "train"), ("inference.json", "infer")])
def test_properties_are_complete(synthrad: Path, trained: Path, tmp_path: Path, name: str, kind: str) -> None:
    (path,) = configs("pretrain", name)
    options = {key: value for key, value in SMALL.items() if key in ConfigParser.load_config_file(path)}
    options |= {"dataset_dir": str(synthrad), "run_dir": str(trained if kind == "infer" else tmp_path)}
    workflow = ConfigWorkflow(path, workflow_type=kind, logging_file=False, **options)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_resume_from_the_command_line_configuration(synthrad: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:  # MONAI's "Failed to evaluate ..."
        train(synthrad, trained, max_epochs=2)
    assert "--resume True" in str(engines.explanation(error.value))
    halves = tmp_path / "halves"
    train(synthrad, halves, max_epochs=1)
    with pytest.raises(RuntimeError) as error:
        train(synthrad, halves, "pretext_tasks.yaml", max_epochs=2, resume=True, extend=True)
    expected = "RandOneContrast, is swinfuse_components.transforms.RandCurve; mode was self, is cross; dense_size"
    assert expected in str(engines.explanation(error.value))
    train(synthrad, halves, max_epochs=2, resume=True, extend=True)
    assert len(read_rows(halves / "losses.csv")) == 6
    assert read_checkpoint(checkpoints_of(halves)[-1])["trainer"]["iteration"] == 6
    assert [path.name for path in halves.glob("configuration*.json")] and len(list(halves.glob("configuration*"))) == 2


@pytest.mark.slow
def test_from_any_working_directory_as_users_type_it(synthrad: Path, tmp_path: Path) -> None:
    """A bundle copied somewhere else, called from elsewhere, writes below its own folder."""
    bundle = tmp_path / "somewhere" / "pretrain"
    (bundle / "configs").mkdir(parents=True)
    for path in glob(*configs("pretrain", "*")):
        shutil.copy(path, bundle / "configs")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = [word for key, value in {**SMALL, "epoch_length": 1}.items() for word in (f"--{key}", str(value))]
    relative = os.path.relpath(bundle / "configs" / "train.json", elsewhere)
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", relative]
    done = subprocess.run(
        [*command, "--dataset_dir", str(synthrad), *options], cwd=elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (bundle / "models" / "model.pt").is_file()
    assert not list(elsewhere.iterdir())


def test_training_and_inference_share_network_and_deterministic_preprocessing() -> None:
    training, inference = (
        json.loads(Path(path).read_bytes()) for path in configs("pretrain", "train.json", "inference.json")
    )
    assert training["network_def"] == inference["network_def"]
    shared = ["roi_size", "feature_size", "window_size", "dim", "dim_options", "mode", "spacing", "ct_window"]
    for key in [*shared, "mr_percentiles", "use_checkpoint", "dense_size", "target_channels"]:
        assert training[key] == inference[key], key

    def settings(transform: dict[str, Any]) -> dict[str, Any]:
        # training also loads the mask, with a key list and an interpolation for it
        other = ("keys", "mode", "modality", "allow_missing_keys")
        return {key: value for key, value in transform.items() if key not in other}

    theirs = [settings(t) for t in inference["preprocessing"]["transforms"][:5]]
    ours = [settings(t) for t in training["train"]["preprocessing"]["transforms"][:5]]
    assert ours == theirs
