"""A package holds all that the Model Zoo asks for, and runs where this library is not installed."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from swinfuse_components.checkpoints import CheckpointError, load_weights
from swinfuse_components.checkpoints.reading import read_weights
from swinfuse_components.data.paths import read_json
from swinfuse_components.distribution import build_package, check_network, check_package, save_weights
from swinfuse_components.distribution.checks import HEADINGS, REQUIRED_FILES, REQUIRED_KEYS
from swinfuse_components.evaluation import write_evaluation
from swinfuse_components.finetuning import pretraining_patients
from swinfuse_components.networks import SwinFUSE, SwinFUSEPretrainer

from ..bundles.conftest import write_brats, write_msd_task
from .conftest import BUNDLES, ROI, make_package, make_weights, run_bundle, run_python, segmented

# run first thing in the interpreter, it makes the installed library invisible, as on a machine that has none
NOT_INSTALLED = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "swinfuse_components":
            raise ModuleNotFoundError(f"{name} is hidden by the test", name=name)
sys.meta_path.insert(0, NotInstalled())
"""
#: the words before the name of MONAI's command
WITHOUT_LIBRARY = (
    *(sys.executable, "-c"),
    NOT_INSTALLED + "import runpy; runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)",
)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_package_has_all_that_the_zoo_asks_for(unpacked: Callable[[str], Path], bundle: str, tmp_path: Path) -> None:
    folder = unpacked(bundle)
    assert list(tmp_path.iterdir()) == [folder]
    assert check_package(folder) == []
    check_network(folder)  # one tensor, as the metadata promise
    assert not list(tmp_path.rglob("__pycache__")), "in the zip, or left by a check"


@pytest.fixture
def folder(unpacked: Callable[[str], Path]) -> Path:
    return unpacked("finetune_msd")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("configs/metadata.json", b"[]"),
        ("configs/inference.json", b"{}"),
        ("large_files.yml", b"large_files: 5"),
        ("docs/README.md", b"\xff"),
    ],
)
def test_files_that_are_something_else_are_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert any(problem.startswith(f"{name}: not as expected") for problem in check_package(folder))


def test_all_that_is_missing_is_named(folder: Path) -> None:
    path, page = folder / "configs" / "metadata.json", folder / "docs" / "README.md"
    path.write_text("{}", encoding="utf-8")
    page.write_text("no heading", encoding="utf-8")
    problems = check_package(folder)
    assert {f"metadata.json: {key} is missing" for key in REQUIRED_KEYS} <= set(problems)
    assert {f"docs/README.md: no heading {heading!r}" for heading in HEADINGS} <= set(problems)
    for name in REQUIRED_FILES:
        (folder / name).unlink()
    assert check_package(folder) == [f"{name}: missing" for name in REQUIRED_FILES]


def test_all_that_is_wrong_is_named(folder: Path) -> None:
    path = folder / "configs" / "metadata.json"
    changes = {"version": "9.9.9", "pytorch_version": ">=2.6"}
    path.write_text(json.dumps(read_json(path) | changes), encoding="utf-8")
    torch.save({"out.conv.conv.weight": torch.zeros(7)}, folder / "models" / "model.pt")
    for name in ("large", "listed"):
        (folder / "models" / f"{name}.pt").write_bytes(bytes(26 * 1024 * 1024))
    entry = "- {path: models/listed.pt, url: '', hash_val: '00', hash_type: sha256}"
    (folder / "large_files.yml").write_text(f"large_files:\n{entry}\n", encoding="utf-8")
    *problems, weights = check_package(folder)
    assert problems == [
        "metadata.json: version 9.9.9 is not in the changelog",
        "metadata.json: pytorch_version is '>=2.6', expected one exact version",
        "models/listed.pt: its url in large_files.yml is empty",
        "models/large.pt: over 25 MB, expected an entry in large_files.yml",
        "models/listed.pt: its sha256 is not the one in large_files.yml",
    ]
    assert "model.pt does not fit the network in" in weights


def test_a_package_has_the_name_and_the_metrics_that_it_is_given(repository: Path, tmp_path: Path) -> None:
    weights = make_weights("finetune_msd", tmp_path / "run")
    description = read_json(weights.with_name("model.json"))
    cases = [{"patient": "a", "image": "a.nii.gz", "dice": {"anterior": 0.5, "posterior": 0.25}}]
    write_evaluation(tmp_path / "evaluation.json", description, cases)
    options = {"weights": weights, "metrics": tmp_path / "evaluation.json", "vendor": False}
    name = "hippocampus_mr_segmentation"
    archive = build_package(repository / "bundles" / "finetune_msd", tmp_path, name=name, **options)
    assert archive.name == f"{name}_v0.1.0.zip"
    metadata = read_json(tmp_path / name / "configs" / "metadata.json")
    assert metadata["name"] == "Hippocampus MR segmentation"
    expected = {"mean_dice": 0.375, "mean_dice_anterior": 0.5, "mean_dice_posterior": 0.25}
    assert metadata["eval_metrics"] == expected
    assert metadata["label_classes"] == "0 background, 1 anterior, 2 posterior"
    write_evaluation(tmp_path / "evaluation.json", {**description, "training_patients": ["another"]}, cases)
    with pytest.raises(ValueError, match="other patients"):
        build_package(repository / "bundles" / "finetune_msd", tmp_path, name=name, **options)
    with pytest.raises(ValueError, match="a/b"):
        build_package(repository / "bundles" / "finetune_msd", tmp_path, name="a/b", **options)


@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_training_goes_on_with_the_network_of_the_weights(package: Callable[[str], Path], bundle: str) -> None:
    folder = package(bundle).parent / bundle
    config, model = read_json(folder / "configs" / "train.json"), read_json(folder / "models" / "model.json")
    for key in ("roi_size", "feature_size", "window_size", "dim", "spacing"):
        assert config[key] == model[key]


def test_a_pre_training_run_brings_its_own_size_and_patients(repository: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    written = {"roi_size": 64, "feature_size": 12, "window_size": 4, "mode": "cross", "dense_size": 8}
    network = SwinFUSEPretrainer(1, **written)
    torch.save({"model": network.state_dict()}, run / "model.pt")
    written |= {"spacing": [3, 3, 3], "dense_weight": 0.5, "downsample": "$'merging'"}
    (run / "configuration.json").write_text(json.dumps(written), encoding="utf-8")
    (run / "patients.json").write_text('{"training": ["a"]}', encoding="utf-8")
    build_package(repository / "bundles" / "pretrain", tmp_path / "out", weights=run / "model.pt")
    folder = tmp_path / "out" / "pretrain"
    assert check_package(folder) == []
    data_format = read_json(folder / "configs" / "metadata.json")["network_data_format"]
    assert data_format["inputs"]["image"]["spatial_shape"] == [64, 64, 64]
    assert data_format["outputs"]["pred"]["spatial_shape"] == [64, 64, 64]
    for name in ("train", "inference"):
        config = read_json(folder / "configs" / f"{name}.json")
        assert config["spacing"] == [3, 3, 3] and config["downsample"] == "merging"
    assert pretraining_patients(folder / "models" / "model.pt") == ["a"]
    assert read_json(folder / "configs" / "train.json")["dense_weight"] == 0.5
    with pytest.raises(CheckpointError, match=r"in 16 of its tensors \(dense_size: file 8, network 0\)"):
        load_weights(SwinFUSEPretrainer(1, 64, 12, window_size=4), folder / "models" / "model.pt")


def test_half_the_room_for_the_same_weights(repository: Path, tmp_path: Path) -> None:
    weights = make_weights("finetune_msd", tmp_path)
    build_package(repository / "bundles" / "finetune_msd", tmp_path / "out", weights=weights, half=True)
    stored = tmp_path / "out" / "finetune_msd" / "models" / "model.pt"
    assert stored.stat().st_size < 0.55 * weights.stat().st_size
    assert check_package(stored.parents[1]) == []
    expected = read_weights(weights)
    network = load_weights(SwinFUSE(1, 3, roi_size=ROI, feature_size=12, window_size=4), stored)
    for name, value in network.state_dict().items():
        assert value.dtype == expected[name].dtype
        torch.testing.assert_close(value, expected[name], rtol=2**-11, atol=2**-25)
    torch.save({"a": torch.tensor([1.0, 1e5])}, tmp_path / "large.pt")
    with pytest.raises(ValueError, match="a has values beyond 65504"):
        save_weights(tmp_path / "large.pt", tmp_path / "half.pt", half=True)


def test_the_same_content_gives_the_same_zip(package: Callable[[str], Path], repository: Path, tmp_path: Path) -> None:
    weights = package("finetune_msd").parents[1] / "weights" / "finetune_msd" / "model.pt"
    options = {"weights": weights, "url_prefix": "https://example.org/weights"}
    again = build_package(repository / "bundles" / "finetune_msd", tmp_path, **options)
    assert again.read_bytes() == package("finetune_msd").read_bytes()


def test_wrong_arguments_are_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a bundle's folder"):
        build_package(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"^no_such_key: neither train.json nor inference.json of finetune_msd has it"):
        build_package(repository / "bundles" / "finetune_msd", tmp_path / "out", settings={"no_such_key": 1})
    with pytest.raises(ValueError, match="^other: neither"):  # nobody refers to it
        settings = {"crops": "@mine", "mine": 3, "other": "@mine"}
        build_package(repository / "bundles" / "finetune_msd", tmp_path / "out", settings=settings)
    with pytest.raises(FileNotFoundError, match=r"missing\.pt: no such checkpoint file"):
        save_weights(tmp_path / "missing.pt", tmp_path / "model.pt")
    torch.save({"epoch": 3}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match="holds no weights: found the keys 'epoch'"):
        save_weights(tmp_path / "odd.pt", tmp_path / "model.pt")


def test_inference_takes_the_size_from_the_weights_whatever_training_does(repository: Path, tmp_path: Path) -> None:
    build_package(repository / "bundles" / "finetune_msd", tmp_path, settings={"roi_size": [32, 64, 32]})
    configs = tmp_path / "finetune_msd" / "configs"
    assert read_json(configs / "train.json")["roi_size"] == [32, 64, 32]
    assert read_json(configs / "inference.json")["roi_size"] == "$@task['roi_size']"


def test_settings_beside_the_weights_never_become_code(package, repository: Path, tmp_path: Path) -> None:
    """Neither plain expressions nor nested ones nor objects go from a run's record into a configuration."""
    run = tmp_path / "run"
    shutil.copytree(package("finetune_msd").parents[1] / "weights" / "finetune_msd", run)
    record = read_json(run / "model.json")
    evil = "$__import__('os').system('touch planted')"
    for key, value, message in (("spacing", [1, evil, 1], "spacing is"), ("channels", [evil], "would be code")):
        (run / "model.json").write_text(json.dumps(record | {key: value}), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            build_package(repository / "bundles" / "finetune_msd", tmp_path / "out", weights=run / "model.pt")
    record["dim_options"] = {"tokens": ["planes", {"gate": evil}]}
    record["network_options"] = {"norm_name": ["group", {"_target_": "os.system"}]}
    (run / "model.json").write_text(json.dumps(record), encoding="utf-8")
    build_package(repository / "bundles" / "finetune_msd", tmp_path / "out", weights=run / "model.pt")
    places = (repository / "bundles" / "finetune_msd", tmp_path / "out" / "finetune_msd")
    plain, built = (read_json(place / "configs" / "train.json") for place in places)
    assert "__import__('os')" not in json.dumps(built) and "os.system" not in json.dumps(built)
    assert built["feature_size"] == record["feature_size"]
    assert all(built[key] == plain[key] for key in ("dim_options", "norm_name"))


# an image in memory, read with a bare parser as MONAI Deploy's MonaiBundleInferenceOperator does: no file is loaded or
# saved, and nobody says where the bundle lies
AS_DEPLOY = NOT_INSTALLED + """
import nibabel, numpy, torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
bundle, answer, *files = sys.argv[1:]
sys.path.insert(0, bundle)
parser = ConfigParser()
parser.read_config([bundle + "/configs/inference.json"])
parser.parse()
def in_memory(name):
    compose = parser.get_parsed_content(name)
    names = [type(step).__name__ for step in compose.transforms]
    kept = [not ("LoadImage" in name or "SaveImage" in name) for name in names]
    compose.transforms = tuple(step for step, keep in zip(compose.transforms, kept) if keep)
    return compose
network = parser.get_parsed_content("network")
network.load_state_dict(torch.load(bundle + "/models/model.pt", weights_only=True))
volumes = [nibabel.load(file) for file in files]
arrays = [volume.get_fdata(dtype=numpy.float32) for volume in volumes]
array, channel = (arrays[0], "no_channel") if len(arrays) == 1 else (numpy.stack(arrays), 0)
image = MetaTensor(array, affine=volumes[0].affine, meta={"original_channel_dim": channel})
item = in_memory("preprocessing")({"image": image})
with torch.no_grad():
    item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network.eval())[0]
numpy.save(answer, in_memory("postprocessing")(item)["pred"].numpy())
"""


def write_volume(path: Path, seed: int, shape: tuple[int, int, int] = (64, 64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(100, 30, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.0, 1.0])), path)


@pytest.mark.parametrize(
    "bundle", ["finetune_msd", *(pytest.param(b, marks=pytest.mark.slow) for b in ("finetune_brats", "ood_eval"))]
)
def test_zip_infers_without_the_library(unpacked: Callable[[str], Path], bundle: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    channels = ("flair", "t1ce", "t1", "t2") if bundle == "finetune_brats" else ("image",)
    files = [data / "case_1" / f"case_1_{channel}.nii.gz" for channel in channels]
    for number, file in enumerate(files):
        write_volume(file, number)
    places = {"dataset_dir": data, "output_dir": tmp_path / "answer"}
    run_bundle(WITHOUT_LIBRARY, unpacked(bundle), "inference", "inference.json", **places)
    labels = segmented(tmp_path / "answer").get_fdata()
    assert labels.shape == (64, 64, 64)

    # from another working directory, with a parser that knows no bundle
    answer = [tmp_path / bundle, tmp_path / "answer.npy", *files]
    done = run_python(sys.executable, "-c", AS_DEPLOY, *answer, folder=data)
    assert done.returncode == 0, done.stderr[-3000:]
    assert np.array_equal(np.load(tmp_path / "answer.npy")[0], labels)


@pytest.mark.slow
def test_zip_pre_trains_without_the_library(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    for patient in range(3):
        for number, name in enumerate(("ct", "mr")):
            write_volume(tmp_path / f"data/Task1/brain/{patient}/{name}.nii.gz", 10 * patient + number)
        mask = nib.Nifti1Image(np.ones((64, 64, 64), np.uint8), np.eye(4))
        nib.save(mask, tmp_path / f"data/Task1/brain/{patient}/mask.nii.gz")
    steps = {"epoch_length": 3, "max_epochs": 1, "val_interval": 1, "batch_size": 1, "num_workers": 0}
    places = {"dataset_dir": tmp_path / "data", "run_dir": tmp_path / "run", "spacing": "[1,1,1]"}
    run_bundle(WITHOUT_LIBRARY, unpacked("pretrain"), "training", "train.json", **places, **steps)
    assert (tmp_path / "run" / "model.pt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_zip_trains_with_random_contrast_without_the_library(repository: Path, bundle: str, tmp_path: Path) -> None:
    """The overlay brings keys of its own, and code of ours that the bundle itself does not carry."""
    overlay = repository / "bundles" / bundle / "configs" / "random_contrast.yaml"
    archive = make_package(repository, bundle, tmp_path, overlays=[overlay])
    folder = archive.parent / bundle
    assert check_package(folder) == []
    task = write_msd_task(tmp_path, "Task90_Toy", ("MRI",), ("box",), cases=5)
    data = task if bundle == "finetune_msd" else write_brats(tmp_path / "brats", cases=5)
    steps = {"max_epochs": 1, "val_interval": 1, "batch_size": 1, "num_workers": 0, "crops": 1}
    contrast = {"contrast_prob": 1.0, "contrast_warmup": "[0,0]"}
    places = {"dataset_dir": data, "run_dir": tmp_path / "run"}
    run_bundle(WITHOUT_LIBRARY, folder, "training", "train.json", **places, **steps, **contrast)
    assert len(read_json(tmp_path / "run" / "model.json")["histogram"][0]) > 2
    resumed = torch.load(next((tmp_path / "run").glob("*checkpoint*.pt")), weights_only=True)
    assert "average" in resumed
