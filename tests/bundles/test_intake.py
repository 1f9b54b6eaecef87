"""Data as users have them, through the bundles: nnU-Net's folders, several sources without masks, DICOM series."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Invertd

from swinfuse_components.data import describe_task
from swinfuse_components.engines import explanation
from swinfuse_components.evaluation.models import model_source
from swinfuse_components.evaluation.targets import read_target
from swinfuse_components.transforms import MatchHistogramd, body_quantiles

from ..data.test_dicom_seg import hd, write_series
from ..models import BRATS, DESCRIPTION, read_rows, write_model
from .conftest import TINY, parse, write_brats, write_msd_task, write_synthrad
from .grids import AFFINES
from .small_runs import SMALL

SHAPE = (40, 36, 32)


def volume(path: Path, seed: int, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 3 if label else 900, SHAPE)
    nib.save(nib.Nifti1Image(values.astype(np.uint8 if label else np.int16), np.diag([4.0, 4, 4, 1])), path)


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """nnU-Net v2 raw data with regions, as nnU-Net has it."""
    root = tmp_path / "Dataset001_Own"
    for number in range(4):
        volume(root / "imagesTr" / f"p{number}_0000.nii.gz", number)
        volume(root / "labelsTr" / f"p{number}.nii.gz", number, label=True)
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "whole": [1, 2], "Core_L": 2}}
    (root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}), encoding="utf-8-sig")
    return root


def test_finetuning_takes_nnunet_regions_and_sides(nnunet: Path) -> None:
    options = {"bundle_root": "none", "dataset_dir": nnunet, "num_folds": 2}
    parser = parse("finetune_msd", "train.json", **options)
    assert parser.get_parsed_content("regions") == {"whole": [1, 2], "Core_L": [2]}
    assert parser.get_parsed_content("flip_axes") == [1, 2]
    assert [item["patient"] for item in parser.get_parsed_content("datalist")] == ["p0", "p1", "p2", "p3"]
    named = parse("finetune_msd", "train.json", **options, patient_pattern=r"p(\d)", modality="other")
    assert named.get_parsed_content("task")["modality"] == "other"
    assert [item["patient"] for item in named.get_parsed_content("listed")] == ["0", "1", "2", "3"]


def test_a_dicom_series_comes_back_as_dicom_seg(segment, tmp_path: Path) -> None:
    run = write_model(tmp_path / "run", codes={"box": ["78961009", "SCT", "Spleen"]})
    output, series = tmp_path / "out", write_series(tmp_path / "study" / "CT")
    segment("finetune_msd", series, run, output, output_format="dicom_seg", modality="other")
    assert sorted(file.name for file in output.iterdir()) == ["CT_seg.dcm", "volumes.csv"]
    result = hd.seg.segread(output / "CT_seg.dcm")
    assert result.get_segment_description(1).segmented_property_type.meaning == "Spleen"
    assert len(list(result.get_source_image_uids())) == 6
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8)), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(RuntimeError):
        segment("finetune_msd", tmp_path / "a.nii.gz", run, output, output_format="dicom_seg")


@pytest.mark.parametrize("channels", [["CT"], ["T1", "T2"], BRATS["channels"]], ids=str)
def test_every_way_prepares_one_oblique_volume_alike(tmp_path: Path, channels: list[str]) -> None:
    """Training, inference and evaluation of the bundle that fine-tunes; inference and evaluation of ood_eval.

    With the histogram that random_contrast.yaml measures; an oblique volume shows every difference.
    """
    settings = {"spacing": [1.3, 1.1, 1.7]}
    if channels == BRATS["channels"]:
        bundle, folder, described = "finetune_brats", write_brats(tmp_path / "brats"), BRATS
    else:
        bundle, folder = "finetune_msd", write_msd_task(tmp_path, channels=channels, cases=2)
        settings["ct_window"] = [-180, 240]
        described = {"channels": channels, "modality": "ct" if channels == ["CT"] else "mr"}
    for file in folder.rglob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(file).dataobj), AFFINES["oblique"]), file)
    histogram = [np.linspace(0.1, 0.9, 101).round(4).tolist()] * len(channels)
    model = str(write_model(tmp_path / "run", **{**described, **settings}, histogram=histogram))
    target = read_target(folder)
    case, item = target.load(target.items[0]), target.items[0]
    images = folder / "imagesTr" if bundle == "finetune_msd" else folder

    paths = {"run_dir": model, "bundle_root": "none", "dataset_dir": images}
    training = parse(bundle, "train.json", **{**paths, "dataset_dir": folder}, num_folds=2, **settings)
    evaluation = parse(bundle, "train.json", "evaluate.json", **{**paths, "dataset_dir": folder})
    ood = parse("ood_eval", "inference.json", model_dir=model, dataset_dir=images, modality=described["modality"])
    inputs = {key: item[key] for key in ("image", "label")}
    match = MatchHistogramd("image", histogram)
    prepared = {
        "training": Compose([*training.get_parsed_content("train::deterministic_transforms"), match])(inputs)["image"],
        "evaluating": evaluation.get_parsed_content("preprocessing")(inputs)["image"],
        "inference": parse(bundle, "inference.json", **paths).get_parsed_content("dataset")[0]["image"],
        "ood_eval": model_source(model).preprocessing({"image": case.image, "modality": case.modality})["image"],
        "ood_eval inference": ood.get_parsed_content("dataset")[0]["image"],
    }
    first = prepared["training"]
    assert first.shape[0] == len(channels) and np.abs(body_quantiles(first)[0] - histogram[0]).max() < 0.02
    for way, other in prepared.items():
        assert torch.equal(torch.as_tensor(first), torch.as_tensor(other)), way
        assert torch.allclose(first.affine, other.affine), way


def test_pretraining_and_its_inference_prepare_one_volume_alike(tmp_path: Path) -> None:
    folder = write_synthrad(tmp_path / "synthrad", cases=2)
    for file in folder.rglob("*.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(file).dataobj), AFFINES["oblique"]), file)
    steps, prepared = 4, []
    for name, key in (("train.json", "train::preprocessing"), ("inference.json", "preprocessing")):
        item = {"image": str(next(folder.rglob("mr.nii.gz"))), "modality": "mr"}
        transforms = parse("pretrain", name).get_parsed_content(key).transforms
        prepared.append(Compose(transforms[:steps])(item)["image"])
    assert torch.equal(torch.as_tensor(prepared[0]), torch.as_tensor(prepared[1]))


@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_what_a_label_server_brings_is_checked_as_well(bundle: str, repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / bundle
    shutil.copytree(repository / "bundles" / bundle / "configs", copy / "configs")
    subprocess.run([sys.executable, repository / "scripts" / "label_server" / "prepare.py", copy], check=True)
    channels = 4 if bundle == "finetune_brats" else 1
    model = write_model(tmp_path / "model", **(BRATS if channels == 4 else {}))
    file = tmp_path / "constant.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, channels), np.int16), np.eye(4)), file)

    changes = {"bundle_root": copy, "run_dir": model, "dataset_dir": "none"}
    inference = parse(bundle, str(copy / "configs" / "inference.json"), **changes)
    changes |= {"task": BRATS if channels == 4 else DESCRIPTION}
    changes |= {"train#dataset#data": [{"image": str(file), "label": str(file)}]}
    training = parse(bundle, str(copy / "configs" / "train.json"), **changes)
    preprocessing = inference.get_parsed_content("preprocessing")
    for read in (
        lambda: training.get_parsed_content(f"initialize::{len(training['initialize']) - 1}"),
        lambda: preprocessing({"image": str(file)}),
    ):
        with pytest.raises(Exception, match=r"every voxel is 0|Failed to evaluate|applying transform") as error:
            read()
        assert "every voxel is 0 [constant]" in str(explanation(error.value))
    values = np.random.default_rng(0).integers(-200, 200, (8, 8, 8, channels))
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), file)
    item = preprocessing({"image": str(file)})
    back = Invertd("pred", preprocessing, orig_keys="image")
    assert back({**item, "pred": item["image"]})["pred"].shape == (channels, 8, 8, 8)


def source_of(kind: str, root: Path, nnunet: Path) -> dict[str, object]:
    """Settings of pre-training for data that are laid out as ``kind``."""

    def tasks(*channels: str) -> list[dict[str, object]]:
        names = {channel: f"Task9{number}_{channel}" for number, channel in enumerate(channels)}
        return [
            {"path": str(write_msd_task(root, name, [c], ["box"], cases=3)), "weight": 2} for c, name in names.items()
        ]

    for number in range(3):
        volume(root / "plain" / f"q{number}_mr.nii.gz", number)
    listed = [{"image": f"plain/q{number}_mr.nii.gz", "modality": "MRI"} for number in range(3)]
    (root / "list.json").write_text(json.dumps({"training": listed[:2], "validation": listed[2:]}), encoding="utf-8")
    if kind == "dicom":
        for number in range(3):
            write_series(root / "study" / f"p{number}", slices=5 + number)
    return {
        "synthrad": lambda: {"dataset_dir": str(write_synthrad(root / "synthrad"))},
        "unpaired tasks": lambda: {"datasets": tasks("CT", "T1")},
        "three modalities": lambda: {
            "datasets": tasks("CT", "T2", "PET"),
            "modality_ratio": {"ct": 1, "mr": 1, "pet": 2},
        },
        "plain folder": lambda: {"dataset_dir": str(root / "plain")},
        "json list": lambda: {"dataset_dir": str(root / "list.json")},
        "nnunet": lambda: {"dataset_dir": str(nnunet)},
        "dicom": lambda: {"dataset_dir": str(root / "study")},
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("three modalities", "plain folder", "nnunet", "dicom"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("synthrad", "unpaired tasks", "json list")),
    ],
)
def test_pretraining_takes_three_steps_on(kind: str, run_bundle, nnunet: Path, tmp_path: Path, capsys) -> None:
    settings = {**SMALL["pretrain"], "epoch_length": 3, "validation_fraction": 0.34, "run_dir": tmp_path / "run"}
    settings |= source_of(kind, tmp_path, nnunet)
    run_bundle("pretrain", ["train.json"], "checking", **settings)
    assert "are fit for pre-training" in capsys.readouterr().out
    run_bundle("pretrain", ["train.json"], "training", **settings)
    losses = [float(row["loss"]) for row in read_rows(tmp_path / "run" / "losses.csv")]
    assert len(losses) == 3 and np.isfinite(losses).all()


def as_2023(source: Path, target: Path) -> Path:
    """A copy of a BraTS21 folder under the names of BraTS 2023, enhancing tumour 3, one level further down."""
    names = {"flair": "t2f", "t1ce": "t1c", "t1": "t1n", "t2": "t2w", "seg": "seg"}
    for number, folder in enumerate(sorted(source.iterdir())):
        patient = f"BraTS-GLI-{number:05d}-000"
        for old, new in names.items():
            file = target / "TrainingData" / patient / f"{patient}-{new}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            if old == "seg":
                image = nib.load(folder / f"{folder.name}_seg.nii.gz")
                values = np.asarray(image.dataobj)
                nib.save(nib.Nifti1Image(np.where(values == 4, 3, values).astype(values.dtype), image.affine), file)
            else:
                shutil.copy(folder / f"{folder.name}_{old}.nii.gz", file)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("volumes", ["made", "real"])
def test_brats_2023_gives_what_brats_2021_gives(
    volumes: str, run_bundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same losses; the same label maps, with one set of weights and with each training's own."""
    real = request.getfixturevalue("swinfuse_data") / "BraTS21_like" if volumes == "real" else None
    years = {"b21": real or write_brats(tmp_path / "b21")}
    years["b23"] = as_2023(years["b21"], tmp_path / "b23")
    grid = {"spacing": [3.0, 3.0, 3.0] if real else [1.0, 1.0, 1.0]}
    shared = write_model(tmp_path / "shared", **BRATS, **grid)
    losses, maps = {}, {}
    for year, folder in years.items():
        own, data = tmp_path / f"own_{year}", {"dataset_dir": folder, "device": TINY["device"], "overlap": 0.0}
        steps = {**TINY, **grid, "num_folds": 2, "max_epochs": 2, "val_interval": 2, "learning_rate": 0.01, "views": 2}
        run_bundle("finetune_brats", ["train.json"], "training", run_dir=own, **{**steps, **data})
        losses[year] = [row["loss"] for row in read_rows(own / "losses.csv")]
        maps[year] = []
        for weights in (shared, own):
            folders = {"run_dir": weights, "output_dir": (output := tmp_path / f"{year}_by_{weights.name}")}
            run_bundle("finetune_brats", ["inference.json"], "inference", **folders, **data)
            maps[year] += [np.asarray(nib.load(file).dataobj) for file in sorted(output.glob("*.nii.gz"))]
    assert losses["b21"] == losses["b23"] and len(losses["b21"]) == 2
    assert len(maps["b21"]) == 4 and all(np.array_equal(*pair) for pair in zip(maps["b21"], maps["b23"], strict=True))
    assert set(np.unique(maps["b21"][0])) <= {0, 1, 2, 4} and all(np.any(found) for found in maps["b21"])


def test_pretraining_mixes_sources_without_masks(nnunet: Path, tmp_path: Path) -> None:
    for number in range(3):
        volume(tmp_path / "plain" / f"q{number}_us.nii.gz", 10 + number)
    sources = [{"path": str(nnunet), "weight": 3}, str(tmp_path / "plain")]
    options = {"datasets": sources, "roi_size": 32, "spacing": [4, 4, 4], "cache_rate": 0.0, "num_workers": 0}
    parser = parse("pretrain", "train.json", **options)
    items = parser.get_parsed_content("items")
    assert [item["modality"] for item in items] == ["mr"] * 4 + ["us"] * 3
    weights = parser.get_parsed_content("sampling_weights")
    kinds = [item["modality"] for item in parser.get_parsed_content("train_items")]
    assert sum(weight for weight, kind in zip(weights, kinds) if kind == "mr") == pytest.approx(0.75)
    views = parser.get_parsed_content("train::dataset")[0]
    assert views["view_i"].shape == (1, 32, 32, 32) and 0 <= float(views["view_i"].min())


def test_a_task_says_what_it_is_under_any_name_of_its_folder(nnunet: Path) -> None:
    odd = nnunet.rename(nnunet.with_name("own #1"))
    assert describe_task(str(odd).replace("#", "::")).regions == {"whole": [1, 2], "Core_L": [2]}
