"""What the configurations of the two fine-tuning bundles promise, read without running them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from .conftest import DECATHLON

BUNDLES = ("finetune_msd", "finetune_brats")


def read(repository: Path, bundle: str, name: str) -> dict[str, Any]:
    return json.loads((repository / "bundles" / bundle / "configs" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_evaluation_and_inference_share_network_and_preprocessing(repository: Path, bundle: str) -> None:
    train, inference, evaluate = (read(repository, bundle, f"{n}.json") for n in ("train", "inference", "evaluate"))
    assert inference["network_def"] == train["network_def"]
    *transforms, matching = inference["preprocessing"]["transforms"]
    assert transforms == train["train"]["deterministic_transforms"] and [matching] == evaluate["histogram_matching"]
    expected = "$[@load_label] + @train#deterministic_transforms + @histogram_matching"
    assert evaluate["preprocessing"]["transforms"] == expected
    assert "network_def" not in evaluate and "deterministic_transforms" not in str(evaluate.get("train"))
    for key in ("inferer", "activations", "checkpoint_loader", "evaluator", "match_histogram"):
        assert evaluate[key] == inference[key], key
    # every value those parts refer to is written to model.json by training and read back from it
    used = {word for word in ("roi_size", "feature_size", "window_size", "dim", "dim_options", "spacing", "mr_nonzero")}
    for key in used:
        assert key in train["description"]
        assert inference[key] == evaluate[key] == f"$@task['{key}']"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_can_be_driven_by_monai_label(repository: Path, bundle: str) -> None:
    train = read(repository, bundle, "train.json")
    # MONAI Label looks into each handler for a CheckpointLoader and replaces the two data lists and max_epochs
    assert all(isinstance(handler, dict) and "_target_" in handler for handler in train["train"]["handlers"])
    assert {"data", "transform"} <= set(train["train"]["dataset"]) and "data" in train["validate"]["dataset"]
    assert "max_epochs" in train["train"]["trainer"] and {"device", "network", "bundle_root"} <= set(train)
    inference = read(repository, bundle, "inference.json")
    assert {"network_def", "preprocessing", "postprocessing", "inferer"} <= set(inference)
    assert not [value for value in json.dumps(inference).split('"') if value.startswith("%")], (
        "no macro, one file alone"
    )


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(("name", "kind"), [("train.json", "train"), ("inference.json", "infer")])
def test_monai_finds_its_properties(
    repository: Path,
    bundle: str,
    name: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_msd_task: Callable[..., Path],
    brats_dir: Path,
    tiny: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset_dir = make_msd_task() if bundle == "finetune_msd" else brats_dir
    path = repository / "bundles" / bundle / "configs" / name
    workflow = ConfigWorkflow(
        config_file=str(path),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(dataset_dir if kind == "train" or bundle == "finetune_brats" else dataset_dir / "imagesTr"),
        run_dir=str(tmp_path / "run"),
        num_folds=2,
        **tiny,
    )
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
