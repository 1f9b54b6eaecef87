"""finetune_brats from folders to label maps, small."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data.utils import dense_patch_slices

from swinfuse_components.evaluation import score_label_maps
from swinfuse_components.networks import SwinFUSEPretrainer

from ..models import BRATS, read_rows, write_model
from .conftest import PRETRAINED_ROI, TINY, parse, write_brats

Run = Callable[..., ConfigWorkflow]
REGIONS = BRATS["regions"]


def test_from_a_one_channel_pre_training_to_label_maps(run_bundle: Run, segment: Run, tmp_path: Path) -> None:
    brats_dir = write_brats(tmp_path / "brats")
    torch.manual_seed(3)
    pretrainer = SwinFUSEPretrainer(1, roi_size=TINY["roi_size"], feature_size=12, window_size=4)
    torch.save({"model": pretrainer.state_dict()}, tmp_path / "pretrained.pt")
    run_dir = tmp_path / "run"
    common = {"dataset_dir": str(brats_dir), "num_folds": 2, "run_dir": str(run_dir), "overlap": 0.0, "num_workers": 0}
    options = {**TINY, **common, "views": 2, "batch_size": 1, "start": "pretrained"}
    options["pretrained_checkpoint"] = str(tmp_path / "pretrained.pt")
    run_bundle("finetune_brats", ["train.json"], "training", **options)
    described = json.loads((run_dir / "model.json").read_text(encoding="utf-8"))
    assert described["channels"] == ["FLAIR", "T1ce", "T1", "T2"] and described["regions"] == REGIONS
    assert described["sigmoid"] is True and described["model_name"] == "SwinFUSE (P)"

    run_bundle("finetune_brats", ["train.json", "evaluate.json"], "evaluating", save_predictions=True, **common)
    record = json.loads((run_dir / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    (case,) = record["cases"]
    assert set(case["dice"]) == set(case["hd95_mm"]) == set(REGIONS)
    assert case["patient"] not in record["training_patients"]
    validated = float(read_rows(run_dir / "validation.csv")[-1]["val_mean_dice"])
    assert record["mean"]["dice"]["mean"] == pytest.approx(validated, abs=1e-5)

    # the label map in the file, nested as its values are, scores the same for the regions that its nesting keeps
    (written,) = (run_dir / "evaluation").glob("*.nii.gz")
    truth = brats_dir / case["patient"] / f"{case['patient']}_seg.nii.gz"
    assert set(np.unique(np.asarray(nibabel.load(written).dataobj))) <= {0, 1, 2, 4}
    assert score_label_maps(written, truth, {"ET": [4]})["dice"]["ET"] == pytest.approx(case["dice"]["ET"], abs=1e-5)

    # the same patient through inference, from its folder: the same file
    shutil.copytree(brats_dir / case["patient"], tmp_path / "new" / case["patient"])
    (tmp_path / "new" / case["patient"] / f"{case['patient']}_seg.nii.gz").unlink()
    segment("finetune_brats", tmp_path / "new", run_dir, tmp_path / "out")
    (again,) = (tmp_path / "out").glob("*.nii.gz")
    np.testing.assert_array_equal(np.asarray(nibabel.load(again).dataobj), np.asarray(nibabel.load(written).dataobj))
    np.testing.assert_allclose(nibabel.load(again).affine, nibabel.load(truth).affine)
    (row,) = read_rows(tmp_path / "out" / "volumes.csv")
    values = np.asarray(nibabel.load(again).dataobj)
    assert float(row["enhancing tumour (ml)"]) == pytest.approx((values == 4).sum() / 1000, abs=1e-3)


def test_overlapping_regions_become_one_label_map(tmp_path: Path) -> None:
    parser = parse("finetune_brats", "inference.json", run_dir=write_model(tmp_path / "model", **BRATS))
    transforms = parser.get_parsed_content("restore_transforms")
    to_map = next(t for t in transforms if type(t).__name__ == "Lambdad")
    tc, wt, et = torch.tensor([1, 1, 0, 0, 0]), torch.tensor([1, 1, 1, 0, 0]), torch.tensor([1, 0, 0, 0, 1])
    regions = torch.stack([tc, wt, et]).float().reshape(3, 5, 1, 1)
    assert to_map({"pred": regions})["pred"].flatten().tolist() == [4, 1, 2, 0, 4]


def test_real_patients_lose_their_background_before_the_windows(swinfuse_data: Path, tmp_path: Path) -> None:
    """Cropping to the brain leaves about a quarter of the windows of 96 cubed at half overlap."""
    options = {"dataset_dir": swinfuse_data / "BraTS21_like", "run_dir": write_model(tmp_path / "model", **BRATS)}
    parser = parse("finetune_brats", "inference.json", spacing=[1.0, 1.0, 1.0], **options)
    item = parser.get_parsed_content("dataset")[0]
    assert item["image"].shape[0] == 4 and 0 <= float(item["image"].min()) and float(item["image"].max()) <= 1
    windows = [
        len(dense_patch_slices(size, (96,) * 3, (48,) * 3)) for size in ((240, 240, 155), item["image"].shape[1:])
    ]
    assert windows[0] == 48 and windows[1] <= 18


@pytest.mark.parametrize("start", [pytest.param("scratch", marks=pytest.mark.slow), "pretrained"])
def test_real_patients_train_and_come_back_on_their_grid(
    start: str, run_bundle: Run, pretrained_run: Path, swinfuse_data: Path, tmp_path: Path
) -> None:
    folder = swinfuse_data / "BraTS21_like"
    common = {"dataset_dir": str(folder), "run_dir": str(tmp_path / "run")}
    common |= {"num_folds": 2, "overlap": 0.0, "num_workers": 0}
    # 4 mm for the test's time; the answer is on the grid of 1 mm all the same
    options = {**TINY, **common, "spacing": [4.0, 4.0, 4.0], "roi_size": PRETRAINED_ROI, "start": start}
    checkpoint = str(pretrained_run / "model.pt")
    run_bundle("finetune_brats", ["train.json"], "training", pretrained_checkpoint=checkpoint, **options)
    run_bundle("finetune_brats", ["train.json", "evaluate.json"], "evaluating", save_predictions=True, **common)
    (written,) = (tmp_path / "run" / "evaluation").glob("*.nii.gz")
    patient = json.loads((tmp_path / "run/evaluation/evaluation.json").read_bytes())["cases"][0]["patient"]
    source = nibabel.load(folder / patient / f"{patient}_flair.nii.gz")
    found = nibabel.load(written)
    assert found.shape == source.shape == (240, 240, 155)
    np.testing.assert_allclose(found.affine, source.affine, atol=1e-4)
