"""The bundle as users type it: models and data sets in, tables out, from any working directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from swinfuse_components.data import assign_folds

from ..models import BRATS, read_rows, write_model
from .conftest import write_msd_task

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


def test_one_model_on_one_data_set_from_the_command_line(repository: Path, workplace: Path, tmp_path: Path) -> None:
    """The plain command, from a folder that has nothing to do with the repository."""
    config = repository / "bundles/ood_eval/configs/evaluate.json"
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", str(config)]
    command += ["--model_dir", str(workplace / "swinfuse"), "--dataset_dir", str(workplace / "Task02_BoxMR")]
    command += ["--output_dir", str(tmp_path / "out"), "--overlap", "0.0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(tmp_path / "out")
    assert {r["case"] for r in rows if r["model"] == "SwinFUSE"} == set(PATIENTS) - set(TRAINED)
    assert {r["model"] for r in rows} == {"SwinFUSE", "everything foreground", "Otsu's threshold"}
    page = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "| BoxCT |" in page and "Paper's figures" in page
    assert not list(repository.glob("bundles/ood_eval/eval/*"))


def evaluate(repository: Path, overlays: list[str], **options: object) -> None:
    configs = [str(repository / "bundles/ood_eval/configs" / name) for name in ["evaluate.json", *overlays]]
    run(run_id="run", init_id="initialize", config_file=configs, overlap=0.0, **options)


def test_same_target_across_modalities(repository: Path, workplace: Path, tmp_path: Path) -> None:
    models = {"Swin UNETR": str(workplace / "swin_unetr"), "SwinFUSE": str(workplace / "swinfuse")}
    datasets = [str(workplace / "Task01_BoxCT"), str(workplace / "Task02_BoxMR")]
    options = {"models": models, "datasets": datasets, "output_dir": str(tmp_path)}
    evaluate(repository, ["same_target.yaml"], **options, num_folds=2)
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


def test_mistakes_are_said_before_anything_is_computed(repository: Path, workplace: Path, tmp_path: Path) -> None:
    options = {"model_dir": str(workplace / "swinfuse"), "dataset_dir": str(workplace / "Task02_BoxMR")}
    with pytest.raises(RuntimeError) as error:
        evaluate(repository, [], **options, output_dir=str(tmp_path / "out"), class_mapping={"spleen": "box"})
    assert "model SwinFUSE (BoxCT) has no class 'spleen': it has ['box']" in str(error.value.__cause__)
    assert not (tmp_path / "out").exists()


def test_inference_writes_a_label_map_on_the_grid_of_the_image(
    repository: Path, workplace: Path, tmp_path: Path
) -> None:
    config = str(repository / "bundles/ood_eval/configs/inference.json")
    image = workplace / "Task02_BoxMR/imagesTr/case_002.nii.gz"
    options = {"model_dir": str(workplace / "swinfuse"), "dataset_dir": str(image), "output_dir": str(tmp_path)}
    run(run_id="run", config_file=config, overlap=0.0, **options)
    written = nib.load(next(tmp_path.glob("*.nii.gz")))
    assert written.shape == SHAPE and np.allclose(written.affine, nib.load(image).affine, atol=1e-4)


def test_inference_takes_a_model_of_overlapping_regions(repository: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "brats", **BRATS)
    volumes = np.random.default_rng(0).uniform(size=(*SHAPE, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(volumes, np.diag([1.5, 1.5, 2.0, 1.0])), tmp_path / "p1.nii.gz")
    config = str(repository / "bundles/ood_eval/configs/inference.json")
    options = {"model_dir": str(model), "dataset_dir": str(tmp_path / "p1.nii.gz"), "output_dir": str(tmp_path / "out")}
    run(run_id="run", config_file=config, overlap=0.0, **options)
    written = nib.load(next((tmp_path / "out").glob("*.nii.gz")))
    assert written.shape == SHAPE and set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2, 4}


def test_pictures_by_one_command_each(repository: Path, workplace: Path, tmp_path: Path) -> None:
    config = str(repository / "bundles/ood_eval/configs/pictures.json")
    datasets = [str(workplace / "Task01_BoxCT"), str(workplace / "Task02_BoxMR")]
    common = {"model_dir": str(workplace / "swinfuse"), "output_dir": str(tmp_path), "config_file": config}
    run(run_id="attention", init_id="initialize", datasets=datasets, overlap=0.0, **common)
    volumes = [record["volume"] for record in read_rows(tmp_path / "attention.csv")]
    unseen = sorted(set(PATIENTS) - set(TRAINED))[0]
    assert volumes == [f"{unseen}, CT", f"{unseen}, MR"]

    pairs = []
    for name in PATIENTS:
        folder = workplace / "pairs" / "Task1" / "box" / name
        folder.mkdir(parents=True)
        for key, task in (("ct", "Task01_BoxCT/imagesTr"), ("mr", "Task02_BoxMR/imagesTr")):
            shutil.copy(workplace / task / f"{name}.nii.gz", folder / f"{key}.nii.gz")
        shutil.copy(workplace / "Task01_BoxCT/labelsTr" / f"{name}.nii.gz", folder / "mask.nii.gz")
        pairs.append(folder)
    models = {"SwinFUSE": str(workplace / "swinfuse"), "Swin UNETR": str(workplace / "swin_unetr")}
    run(run_id="features", init_id="initialize", models=models, pairs_dir=str(workplace / "pairs"), **common)
    written = {path.name for path in tmp_path.iterdir()}
    for name in ("cka", "tsne_SwinFUSE", "tsne_Swin_UNETR", "attention_difference_SwinFUSE"):
        assert {f"{name}.png", f"{name}.csv"} <= written
    ways = {(r["model"], r["encoder"]) for r in read_rows(tmp_path / "cka.csv")}
    assert ways == {("SwinFUSE", "with DIM"), ("SwinFUSE", "without DIM"), ("Swin UNETR", "no DIM")}


def test_probing_of_frozen_encoders(repository: Path, workplace: Path, tmp_path: Path) -> None:
    run(
        run_id="probing",
        init_id="initialize",
        config_file=str(repository / "bundles/ood_eval/configs/probing.json"),
        dataset_dir=str(workplace / "Task01_BoxCT"),
        datasets=[str(workplace / "Task02_BoxMR")],
        output_dir=str(tmp_path),
        encoders={
            "random": {"feature_size": 12, "roi_size": 32, "window_size": 4},
            "ours": str(workplace / "swinfuse/model.pt"),
        },
        num_folds=2,
        neighbours=2,
    )
    rows = read_rows(tmp_path / "summary.csv")
    assert {row["encoder"] for row in rows} == {"random", "ours"} and {row["dataset"] for row in rows} == {
        "BoxCT",
        "BoxMR",
    }
    assert (tmp_path / "probing.md").is_file()
