"""The bundle as users type it: models and data sets in, tables out, from any working directory."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from swinfuse_components.data import assign_folds

from ..models import BRATS, read_rows, write_model
from .conftest import configs, write_msd_task

Run = Callable[..., ConfigWorkflow]
SHAPE = (32, 30, 24)
PATIENTS = [f"case_{n:03d}" for n in range(4)]
# the patients of the training part of the first of two folds, as the fine-tuning bundles split
TRAINED = [name for name, fold in assign_folds(PATIENTS, 2, 0).items() if fold != 0]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ood")
    for name, channel in (("Task01_BoxCT", "CT"), ("Task02_BoxMR", "MRI")):
        write_msd_task(folder, name, (channel,), ("box",), shape=SHAPE, spacing=(1.5, 1.5, 2.0))
    write_model(folder / "swinfuse", training_patients=TRAINED)
    write_model(folder / "swin_unetr", dim="none", training_patients=TRAINED)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    return read_rows(folder / "cases.csv")


@pytest.mark.slow
def test_one_model_on_one_data_set_from_the_command_line(repository: Path, workplace: Path, tmp_path: Path) -> None:
    """The plain command, from a folder that has nothing to do with the repository."""
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file"]
    command += configs("ood_eval", "evaluate.json") + [
        "--model_dir",
        str(workplace / "swinfuse"),
        "--dataset_dir",
        str(workplace / "Task02_BoxMR"),
    ]
    command += ["--output_dir", str(tmp_path / "out"), "--overlap", "0.0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(tmp_path / "out")
    assert {r["case"] for r in rows if r["model"] == "SwinFUSE"} == set(PATIENTS) - set(TRAINED)
    assert {r["model"] for r in rows} == {"SwinFUSE", "everything foreground", "Otsu's threshold"}
    page = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "| BoxCT |" in page and "Paper's figures" in page
    assert not list(repository.glob("bundles/ood_eval/eval/*"))


def test_same_target_across_modalities(run_bundle: Run, workplace: Path, tmp_path: Path) -> None:
    models = {"Swin UNETR": str(workplace / "swin_unetr"), "SwinFUSE": str(workplace / "swinfuse")}
    datasets = [str(workplace / "Task01_BoxCT"), str(workplace / "Task02_BoxMR")]
    options = {"models": models, "datasets": datasets, "output_dir": tmp_path, "overlap": 0.0}
    run_bundle("ood_eval", ["evaluate.json", "same_target.yaml"], "run", **options, num_folds=2)
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    rows = rows_of(tmp_path)
    assert {r["view"] for r in rows} == {"image", "inverted", "silhouette", "blank"}
    assert "mean training mask of BoxCT" in page and "Swin UNETR / SwinFUSE in each cell" in page
    drops = read_rows(tmp_path / "drops.csv")
    assert {(d["in_distribution"], d["out_of_distribution"]) for d in drops} == {("BoxCT", "BoxMR")}
    ours = [r for r in rows if (r["model"], r["view"]) == ("SwinFUSE", "image")]
    mean = {t: np.mean([float(r["dice"]) for r in ours if r["target"] == t]) for t in ("BoxCT", "BoxMR")}
    plain = next(d for d in drops if d["model"] == "SwinFUSE (BoxCT)")
    assert float(plain["drop"]) == pytest.approx(mean["BoxCT"] - mean["BoxMR"], abs=1e-6)
    assert (tmp_path / "matrix.png").stat().st_size > 5000


def test_mistakes_are_said_before_anything_is_computed(run_bundle: Run, workplace: Path, tmp_path: Path) -> None:
    options = {"model_dir": workplace / "swinfuse", "dataset_dir": workplace / "Task02_BoxMR"}
    options |= {"output_dir": tmp_path / "out", "class_mapping": {"spleen": "box"}}
    with pytest.raises(RuntimeError) as error:
        run_bundle("ood_eval", ["evaluate.json"], "run", **options)
    assert "model SwinFUSE (BoxCT) has no class 'spleen': it has ['box']" in str(error.value.__cause__)
    assert not (tmp_path / "out").exists()


def test_inference_writes_a_label_map_on_the_grid_of_the_image(
    run_bundle: Run, workplace: Path, tmp_path: Path
) -> None:
    image = workplace / "Task02_BoxMR/imagesTr/case_002.nii.gz"
    options = {"model_dir": workplace / "swinfuse", "dataset_dir": image, "output_dir": tmp_path, "overlap": 0.0}
    run_bundle("ood_eval", ["inference.json"], "run", **options)
    written = nib.load(next(tmp_path.glob("*.nii.gz")))
    assert written.shape == SHAPE and np.allclose(written.affine, nib.load(image).affine, atol=1e-4)


def test_inference_takes_a_model_of_overlapping_regions(run_bundle: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "brats", **BRATS)
    volumes = np.random.default_rng(0).uniform(size=(*SHAPE, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(volumes, np.diag([1.5, 1.5, 2.0, 1.0])), tmp_path / "p1.nii.gz")
    options = {"model_dir": model, "dataset_dir": tmp_path / "p1.nii.gz", "output_dir": tmp_path / "out"}
    run_bundle("ood_eval", ["inference.json"], "run", **options, overlap=0.0)
    written = nib.load(next((tmp_path / "out").glob("*.nii.gz")))
    assert written.shape == SHAPE and set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2, 4}


@pytest.mark.slow
def test_pictures_by_one_command_each(run_bundle: Run, workplace: Path, tmp_path: Path) -> None:
    datasets = [str(workplace / "Task01_BoxCT"), str(workplace / "Task02_BoxMR")]
    common = {"model_dir": workplace / "swinfuse", "output_dir": tmp_path}
    run_bundle("ood_eval", ["pictures.json"], "attention", datasets=datasets, overlap=0.0, **common)
    volumes = [record["volume"] for record in read_rows(tmp_path / "attention.csv")]
    unseen = sorted(set(PATIENTS) - set(TRAINED))[0]
    assert volumes == [f"{unseen}, CT", f"{unseen}, MR"]

    for name in PATIENTS:
        folder = workplace / "pairs" / "Task1" / "box" / name
        folder.mkdir(parents=True)
        for key, task in (("ct", "Task01_BoxCT/imagesTr"), ("mr", "Task02_BoxMR/imagesTr")):
            shutil.copy(workplace / task / f"{name}.nii.gz", folder / f"{key}.nii.gz")
        shutil.copy(workplace / "Task01_BoxCT/labelsTr" / f"{name}.nii.gz", folder / "mask.nii.gz")
    models = {"SwinFUSE": str(workplace / "swinfuse"), "Swin UNETR": str(workplace / "swin_unetr")}
    run_bundle("ood_eval", ["pictures.json"], "features", models=models, pairs_dir=workplace / "pairs", **common)
    written = {path.name for path in tmp_path.iterdir()}
    for name in ("cka", "tsne_SwinFUSE", "tsne_Swin_UNETR", "attention_difference_SwinFUSE"):
        assert {f"{name}.png", f"{name}.csv"} <= written
    ways = {(r["model"], r["encoder"]) for r in read_rows(tmp_path / "cka.csv")}
    assert ways == {("SwinFUSE", "with DIM"), ("SwinFUSE", "without DIM"), ("Swin UNETR", "no DIM")}


def test_probing_of_frozen_encoders(run_bundle: Run, workplace: Path, tmp_path: Path) -> None:
    small = {"feature_size": 12, "roi_size": 32, "window_size": 4}
    encoders = {"random": small, "ours": str(workplace / "swinfuse/model.pt")}
    options = {"dataset_dir": workplace / "Task01_BoxCT", "datasets": [str(workplace / "Task02_BoxMR")]}
    options |= {"output_dir": tmp_path, "encoders": encoders, "num_folds": 2, "neighbours": 2}
    run_bundle("ood_eval", ["probing.json"], "probing", **options)
    rows = read_rows(tmp_path / "summary.csv")
    assert {row["encoder"] for row in rows} == {"random", "ours"}
    assert {row["dataset"] for row in rows} == {"BoxCT", "BoxMR"}
    assert (tmp_path / "probing.md").is_file()
