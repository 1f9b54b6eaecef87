"""What the configurations of the two fine-tuning bundles promise, read without running them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from .conftest import DECATHLON, TINY, configs, parse, write_data, write_msd_task

BUNDLES = ("finetune_msd", "finetune_brats")


def read(repository: Path, bundle: str, name: str) -> dict[str, Any]:
    return json.loads((repository / "bundles" / bundle / "configs" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_evaluation_and_inference_share_network_and_preprocessing(repository: Path, bundle: str) -> None:
    train, inference, evaluate = (read(repository, bundle, f"{n}.json") for n in ("train", "inference", "evaluate"))
    assert inference["network_def"] == train["network_def"]
    assert [inference["preprocessing"]["transforms"][-1]] == evaluate["histogram_matching"]
    expected = "$[@load_label] + @train#deterministic_transforms + @histogram_matching"
    assert evaluate["preprocessing"]["transforms"] == expected
    assert "network_def" not in evaluate and "deterministic_transforms" not in str(evaluate.get("train"))
    for key in ("inferer", "activations", "evaluator", "match_histogram"):
        assert evaluate[key] == inference[key], key
    # to a federated client the server brings the weights
    loaded = "checkpoints.load_weights(@network_def, @checkpoint_file)"
    assert inference["network"] == f"${loaded}.to(@device)"
    assert evaluate["network"] == f"$(@network_def if engines.federated() else {loaded}).to(@device)"
    # every value those parts refer to is written to model.json by training and read back from it
    for key in ("roi_size", "feature_size", "window_size", "dim", "dim_options", "spacing", "mr_nonzero"):
        assert key in train["description"]
        assert inference[key] == evaluate[key] == f"$@task['{key}']"


# Where BraTS is another task than one of the Decathlon: nested regions, each a channel of its own, four MRI channels of
# known grid and scale, no side. Everything else is one text, so that a change to one bundle reaches the other.
OF_THE_TASK = {
    "train.json": """task modality in_channels out_channels regions fingerprint spacing ct_window mr_nonzero flip_axes
        sigmoid description/modality description/channels description/labels description/codes description/ct_window
        description/flip_axes loss listed train/intensity train/label_transforms train/random_transforms
        train/preprocessing/transforms validate/preprocessing/transforms validate/postprocessing""",
    "evaluate.json": """task modality out_channels ct_window largest_component activations restore_transforms
        metric_transforms""",
    "inference.json": """task modality out_channels ct_window largest_component preprocessing items
        activations restore_transforms""",
}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Paths of what differs between two JSON values."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return [] if one == other else [path]
    keys = [*one, *(key for key in other if key not in one)]
    return [found for key in keys for found in differences(one.get(key), other.get(key), f"{path}/{key}".strip("/"))]


@pytest.mark.parametrize("name", OF_THE_TASK)
def test_the_twins_differ_by_their_task_alone(repository: Path, name: str) -> None:
    found = differences(*(read(repository, bundle, name) for bundle in BUNDLES))
    allowed = OF_THE_TASK[name].split()
    assert not [path for path in found if not any(f"{path}/".startswith(f"{start}/") for start in allowed)]


@pytest.mark.parametrize("name", ["bfloat16", "pretrained", "random_contrast", "small", "swin_unetr", "swin_unetr_ct"])
def test_the_twins_share_their_overlays(repository: Path, name: str) -> None:
    paths = [repository / "bundles" / bundle / "configs" / f"{name}.yaml" for bundle in BUNDLES]
    # BraTS has no CT
    one, other = (
        [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("ct_window")]
        for path in paths
    )
    assert one == other


@pytest.mark.parametrize("bundle", [*BUNDLES, "pretrain"])
def test_the_log_holds_one_iteration_of_so_many(bundle: str) -> None:
    parser = parse(bundle, "train.json", log_interval=3)
    (number,) = (n for n, each in enumerate(parser["train::handlers"]) if each["_target_"].endswith("StatsLogger"))
    is_logged = parser.get_parsed_content(f"train::handlers::{number}").iteration_log
    assert [iteration for iteration in range(1, 8) if is_logged(None, iteration)] == [1, 4, 7]


def test_the_window_of_a_ct_is_measured_on_many_gpus_too(tmp_path: Path) -> None:
    task = write_msd_task(tmp_path, channels=("CT",), cases=2)
    options = {"dataset_dir": task, "bundle_root": "none", "num_folds": 2}
    one, many = (
        parse("finetune_msd", "train.json", *more, **options).get_parsed_content("ct_window")
        for more in ([], ["multi_gpu_train.json"])
    )
    assert one == many != [-1000, 1000]


@pytest.mark.parametrize("overlay", [None, "random_contrast", "joint", "swin_unetr_ct"])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_can_be_driven_by_monai_label(repository: Path, bundle: str, overlay: str | None) -> None:
    train = read(repository, bundle, "train.json")
    file = repository / "bundles" / bundle / "configs" / f"{overlay}.yaml"
    if file.is_file():
        train = ConfigParser.load_config_files([str(file.with_name("train.json")), str(file)])
    # MONAI Label looks into each handler for a CheckpointLoader and replaces the two data lists and max_epochs
    assert all(isinstance(handler, dict) and "_target_" in handler for handler in train["train"]["handlers"])
    assert {"data", "transform"} <= set(train["train"]["dataset"]) and "data" in train["validate"]["dataset"]
    assert "max_epochs" in train["train"]["trainer"] and {"device", "network", "bundle_root"} <= set(train)
    inference = read(repository, bundle, "inference.json")
    assert {"network_def", "preprocessing", "postprocessing", "inferer"} <= set(inference)
    macros = [value for value in json.dumps(inference).split('"') if value.startswith("%")]
    assert not macros, "one file alone"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_monai_finds_the_properties_of_a_training(
    repository: Path, bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (path,) = configs(bundle, "train.json")
    folders = {"dataset_dir": str(write_data(bundle, tmp_path)), "run_dir": str(tmp_path / "run")}
    options = {**TINY, **folders, "num_folds": 2}
    workflow = ConfigWorkflow(path, workflow_type="train", logging_file=False, **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert Path(workflow.bundle_root) == repository / "bundles" / bundle


def test_every_decathlon_task_has_an_overlay_that_fits_its_facts(repository: Path) -> None:
    folder = repository / "bundles" / "finetune_msd" / "configs" / "tasks"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == sorted(DECATHLON)
    train = read(repository, "finetune_msd", "train.json")
    for name, (channels, labels) in DECATHLON.items():
        overlay = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
        assert set(overlay) <= set(train), f"{name} sets what train.json does not know"
        assert len(overlay["spacing"]) == 3 and all(0.4 <= size <= 4 for size in overlay["spacing"])
        assert all(size % 32 == 0 for size in overlay["roi_size"]) and max(overlay["roi_size"]) >= 64
        assert ("ct_window" in overlay) == (channels == ("CT",)), f"{name}: a CT window is for CT"
        for region, values in overlay.get("regions", {}).items():
            assert region in [label.lower() for label in labels]
            assert set(values) <= set(range(1, len(labels) + 1))
