"""finetune_msd from data set to segmentation, small."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from swinfuse_components.data import msd_datalist, save_folds, split_folds
from swinfuse_components.evaluation import score_label_maps

from ..models import read_rows, write_model
from .conftest import DECATHLON, PRETRAINED_ROI, TINY, few_of, parse, write_data, write_msd_task
from .grids import assert_on_grid_of

Run = Callable[..., ConfigWorkflow]


# CT with two labels, and MRI of two channels; the others differ from these by their numbers
FAST = ("Task03_Liver", "Task05_Prostate")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(DECATHLON)]
)
def test_each_decathlon_task_takes_a_training_step(name: str, run_bundle: Run, tmp_path: Path) -> None:
    channels, labels = DECATHLON[name]
    folder = write_msd_task(tmp_path, name, channels, labels, cases=2)
    options = {**TINY, "val_interval": 0, "num_folds": 2, "dataset_dir": str(folder), "run_dir": str(tmp_path / "run")}
    workflow = run_bundle("finetune_msd", ["train.json", f"tasks/{name}.yaml"], "training", **options)
    network = workflow.parser.get_parsed_content("network_def")
    state = torch.load(tmp_path / "run" / "model_final.pt", weights_only=True)["model"]
    assert state["out.conv.conv.weight"].shape[0] == len(labels) + 1
    assert state["swinViT.patch_embed.proj.weight"].shape[1] == len(channels)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    rows = read_rows(tmp_path / "run" / "losses.csv")
    assert len(rows) == 1 and np.isfinite(float(rows[0]["loss"]))
    described = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    assert described["modality"] == ("ct" if channels == ("CT",) else "mr")
    assert described["channels"] == list(channels) and list(described["labels"].values())[1:] == list(labels)
    assert described["training_patients"] == ["case_000"] or described["training_patients"] == ["case_001"]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["scratch", "pretrained"])
def test_two_folds_of_the_hippocampus_and_their_ensemble(
    start: str, run_bundle: Run, pretrained_run: Path, swinfuse_data: Path, tmp_path: Path
) -> None:
    """Both scored on their own fold, then together; the second takes its fold from a file."""
    source = swinfuse_data / "MSD_like" / "Task04_Hippocampus"
    task = few_of(source, tmp_path / "train", [0, 1, 2, 3])
    unseen = few_of(source, tmp_path / "test", [5])
    checkpoint = str(pretrained_run / "model.pt")
    common: dict[str, Any] = {"dataset_dir": str(task), "num_folds": 2, "pretrained_checkpoint": checkpoint}
    folds = save_folds(split_folds(msd_datalist(task), 2, seed=0), tmp_path / "folds.json", task)
    for fold in (0, 1):
        common["fold_file"] = str(folds) if fold else None
        run_dir = str(tmp_path / f"runs/fold{fold}")
        options = {**common, **TINY, "roi_size": PRETRAINED_ROI, "fold": fold, "run_dir": run_dir}
        run_bundle("finetune_msd", ["train.json"], "run", start=start, **options)
        assert (tmp_path / f"runs/fold{fold}" / "losses.png").stat().st_size > 1000
        settings = {"fold": fold, "run_dir": run_dir, "overlap": 0.0, "num_workers": 0, "save_predictions": True}
        evaluated = run_bundle("finetune_msd", ["train.json", "evaluate.json"], "evaluating", **settings, **common)
        described = json.loads((tmp_path / f"runs/fold{fold}" / "model.json").read_bytes())
        assert described["start"] == start and bool(described["pretraining_patients"]) == (start == "pretrained")
        record = json.loads((tmp_path / f"runs/fold{fold}" / "evaluation" / "evaluation.json").read_bytes())
        assert not {case["patient"] for case in record["cases"]} & set(record["training_patients"])
        # the training's own validation, on the same grid, saw the same Dice
        engine = evaluated.parser.get_parsed_content("evaluator")
        validated = float(read_rows(tmp_path / f"runs/fold{fold}" / "validation.csv")[-1]["val_mean_dice"])
        assert engine.state.metrics["val_mean_dice"] == pytest.approx(validated, abs=1e-6)
        # and so does a Dice computed from the files alone
        case = record["cases"][0]
        prediction = tmp_path / f"runs/fold{fold}/evaluation" / case["image"].replace(".nii.gz", "_seg.nii.gz")
        scores = score_label_maps(prediction, task / "labelsTr" / case["image"], record["regions"])
        assert scores["dice"] == pytest.approx({k: v for k, v in case["dice"].items()}, abs=1e-5, nan_ok=True)

    files = ["train.json", "evaluate.json", "ensemble.yaml"]
    models = {"folds": [0, 1], "run_dir": str(tmp_path / "runs"), "overlap": 0.0, "num_folds": 2, "num_workers": 0}
    with pytest.raises(Exception, match="ConfigExpression") as refused:
        run_bundle("finetune_msd", files, "evaluating", dataset_dir=str(task), **models)
    assert "were used in training" in str(refused.value.__cause__ or refused.getrepr())
    files = ["train.json", "evaluate.json", "all_cases.yaml", "ensemble.yaml"]
    run_bundle("finetune_msd", files, "evaluating", dataset_dir=str(unseen), tta_axes=[2], **models)
    record = json.loads((tmp_path / "runs" / "ensemble" / "evaluation.json").read_text(encoding="utf-8"))
    assert len(record["cases"]) == 1 and len(record["training_patients"]) == 4
    shutil.copytree(unseen / "imagesTr", tmp_path / "images")
    for vote in (False, True):
        output = tmp_path / f"ensemble_{vote}"
        paths = {"dataset_dir": str(tmp_path / "images"), "output_dir": str(output)}
        run_bundle("finetune_msd", ["inference.json", "ensemble.yaml"], "inference", vote=vote, **paths, **models)
        (image,) = (tmp_path / "images").iterdir()
        assert_on_grid_of(output / image.name.replace(".nii.gz", "_seg.nii.gz"), image)


@pytest.mark.parametrize("start", [pytest.param("scratch", marks=pytest.mark.slow), "pretrained"])
def test_a_real_ct_task_trains_from_its_dataset_json_alone(
    start: str, run_bundle: Run, pretrained_run: Path, swinfuse_data: Path, tmp_path: Path
) -> None:
    folder = few_of(swinfuse_data / "MSD_like" / "Task50_HeadNeckCT", tmp_path / "task", [0, 1])
    run_dir = tmp_path / "run"
    # coarse, for the test's time; the CT window is measured
    options = {**TINY, "spacing": [6.0, 6.0, 6.0], "roi_size": PRETRAINED_ROI}
    options["val_interval"] = 5  # more than there are epochs: the last one is validated, or there would be no model.pt
    options |= {"start": start, "pretrained_checkpoint": str(pretrained_run / "model.pt"), "num_folds": 2}
    run_bundle("finetune_msd", ["train.json"], "training", dataset_dir=str(folder), run_dir=str(run_dir), **options)
    described = json.loads((run_dir / "model.json").read_text(encoding="utf-8"))
    low, high = described["ct_window"]
    assert described["modality"] == "ct" and -400 < low < high < 2500
    assert (run_dir / "model.pt").is_file()


def test_the_path_that_monai_label_adds_does_not_disturb(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", modality="mr", spacing=[1.5, 1.5, 1.5])
    image = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 20), np.float32), np.diag([2.0, 2.0, 2.0, 1.0])), image)
    parser = parse("finetune_msd", "inference.json", run_dir=model)
    item = parser.get_parsed_content("preprocessing")({"image": str(image), "image_path": str(image)})
    assert item["image_path"] == str(image)
    assert item["image"].pixdim.tolist() == pytest.approx([1.5, 1.5, 1.5])


@pytest.mark.parametrize("overlay", ["frozen_random_encoder", "swin_unetr", "blank", "silhouette", "cache_on_disk"])
def test_overlays_train_as_they_say(overlay: str, run_bundle: Run, tmp_path: Path) -> None:
    folder = write_msd_task(tmp_path, cases=2, spacing=(2.0, 2.0, 2.0))
    options = {**TINY, "val_interval": 0, "num_folds": 2, "dataset_dir": str(folder), "run_dir": str(tmp_path / "run")}
    workflow = run_bundle("finetune_msd", ["train.json", f"{overlay}.yaml"], "training", **options)
    described = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    state = torch.load(tmp_path / "run" / "model_final.pt", weights_only=True)["model"]
    image = workflow.parser.get_parsed_content("train::dataset")[0][0]["image"]
    if overlay == "frozen_random_encoder":
        torch.manual_seed(0)
        assert not any(p.requires_grad for p in workflow.parser.get_parsed_content("network_def").swinViT.parameters())
    if overlay == "swin_unetr":
        assert described["model_name"] == "Swin UNETR" and not [key for key in state if "domain_invariance" in key]
    if overlay == "blank":
        assert described["input"] == "blank" and image.std() == 0
    if overlay == "silhouette":
        assert described["input"] == "silhouette" and len(image.unique()) <= 2
    if overlay == "cache_on_disk":
        (file,) = (tmp_path / "run" / "cache").glob("*.pt")
        assert type(torch.load(file, weights_only=True)["image"]) is torch.Tensor


@pytest.mark.parametrize("bundle", ["finetune_msd", pytest.param("finetune_brats", marks=pytest.mark.slow)])
def test_random_contrast_resumes_exactly_and_saves_the_average(bundle: str, run_bundle: Run, tmp_path: Path) -> None:
    coarse = {"spacing": (2.0, 2.0, 2.0)} if bundle == "finetune_msd" else {}
    folder = write_data(bundle, tmp_path, cases=4, **coarse)
    run_dir = tmp_path / "run"
    options = {**TINY, "max_epochs": 2, "batch_size": 1, "num_folds": 2, "fold": 0, "contrast_warmup": [0, 3]}
    files = ["train.json", "random_contrast.yaml"]

    def train(**more: Any) -> dict[str, torch.Tensor]:
        run_bundle(bundle, files, "training", dataset_dir=str(folder), run_dir=str(run_dir), **options, **more)
        return torch.load(run_dir / "model_final.pt", weights_only=True)["model"]

    first = train()
    described = json.loads((run_dir / "model.json").read_text(encoding="utf-8"))
    assert np.shape(described["histogram"]) == (len(described["channels"]), 101)
    assert described["largest_component"] == ([1] if bundle == "finetune_msd" else [])
    *_, newest = sorted(run_dir.glob("checkpoint_iteration=*.pt"))
    state = torch.load(newest, weights_only=True)
    assert all(torch.equal(first[name], state["average"][name]) for name in first)
    assert any(not torch.equal(first[name], state["model"][name]) for name in first)
    newest.unlink()
    again = train(resume=True)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_joint_training_scales_each_image_by_its_modality_and_draws_both_data_sets(
    run_bundle: Run, tmp_path: Path
) -> None:
    ct = write_msd_task(tmp_path, "Task90_ToyCT", ("CT",), ("box",), cases=5, spacing=(2.0, 2.0, 2.0))
    mr = write_msd_task(tmp_path, "Task91_ToyMR", ("MRI",), ("box",), cases=3, spacing=(2.0, 2.0, 2.0))
    options = {**TINY, "num_folds": 2, "fold": 0, "ct_window": [-1000.0, 1000.0], "datasets": [str(ct), str(mr)]}
    files = ["train.json", "joint.yaml", "random_contrast.yaml"]
    workflow = run_bundle("finetune_msd", files, "training", run_dir=str(tmp_path / "run"), **options)
    items = workflow.parser.get_parsed_content("train::dataset::data")
    weights = workflow.parser.get_parsed_content("train::dataloader::weights")
    for folder in (ct, mr):
        drawn = [w for w, item in zip(weights, items, strict=True) if item["source"] == str(folder)]
        assert drawn and sum(drawn) == pytest.approx(0.5)
    prepare = workflow.parser.get_parsed_content("prepare")
    for item in items[:1] + items[-1:]:
        image = torch.as_tensor(prepare(item)["image"])
        raw = nibabel.load(item["image"]).get_fdata()
        if item["modality"] == "ct":
            assert float(image.max()) == pytest.approx((raw.max() + 1000) / 2000, abs=0.02)
        else:
            assert float(image.max()) == 1.0
    described = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    assert described["modality"] == "ct" and len(described["training_patients"]) == len({i["patient"] for i in items})
