"""Slips in overrides and overlays of the bundles: one message with the key, before anything is read or written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from swinfuse_components import engines

from .conftest import configs

WRONG: dict[str, tuple[Any, str]] = {
    "max_epochs": ("abc", "a text: expected a whole number such as"),
    "batch_size": (1.5, "a number: expected a whole number such as"),
    "roi_size": ("5x", "a text: expected a "),
    "spacing": ([1.0, "two", 1.0], "expected one number for each of the three axes"),
    "num_workers": ([1, 2], "a list: expected a whole number"),
    "learning_rate": ("1e-3", "a text: expected a number"),
    "resume": (1, "expected a truth value"),
    "weight_decay": (-1, "expected 0 or more"),
    "feature_size": (0, "expected 1 or more"),
    "window_size": (0, "expected 1 or more"),
    "val_interval": (-1, "expected 0 or more"),
    "seed": ("zero", "expected a whole number"),
    "max_epoch": (3, "is a key that nothing uses: did you mean max_epochs"),
    "extend": ("true", "write True"),
}
TRAININGS = ("pretrain", "finetune_msd", "finetune_brats")
# what only some of them have
OTHERS = [
    ("pretrain", "train.json", "ct_window", 1000.0),
    ("pretrain", "train.json", "validation_fraction", 1.5),
    ("pretrain", "inference.json", "feature_size", 0.5),
    ("finetune_msd", "train.json", "max_epochs", 0),
    ("finetune_msd", "train.json", "views", "two"),
    ("finetune_msd", "train.json", "crops", 0),
    ("finetune_msd", "train.json", "early_stop_patience", -2),
    ("finetune_brats", "train.json", "accumulation_steps", 0.5),
    ("finetune_msd", "inference.json", "overlap", 1),
    ("finetune_msd", "inference.json", "sw_batch_size", 0),
    ("ood_eval", "evaluate.json", "overlap", -0.5),
    ("ood_eval", "evaluate.json", "test", "wilcoxn"),
]
OVERLAYS = sorted(path for path in (Path(__file__).parents[2] / "bundles").glob("*/configs/**/*.yaml"))


def check(bundle: str, files: list[str], **overrides: Any) -> None:
    ConfigWorkflow(configs(bundle, *files), workflow_type=None, logging_file=False, **overrides).initialize()


def refusal(*arguments: Any, **overrides: Any) -> str:
    with pytest.raises(RuntimeError) as error:
        check(*arguments, **overrides)
    message = engines.explanation(error.value)
    assert message is not None
    return message


@pytest.mark.parametrize("bundle", TRAININGS)
def test_wrong_overrides_of_a_training(bundle: str, tmp_path: Path) -> None:
    places = {"dataset_dir": str(tmp_path / "no such folder"), "run_dir": str(tmp_path / "run")}
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("+train: {dataloadr: {num_workers: 1}}", encoding="utf-8")
    for key, (value, expected) in WRONG.items():
        message = refusal(bundle, ["train.json"], **{**places, key: value})
        assert message.startswith(f"the configuration has errors: {key} is ") and expected in message
    message = refusal(bundle, ["train.json", str(overlay)], **places)
    assert "train::dataloadr is a key that nothing uses: did you mean train::dataloader?" in message
    every = refusal(bundle, ["train.json"], **places, **{key: value for key, (value, _) in WRONG.items()})
    assert all(f"{key} is " in every for key in WRONG)  # all at once
    assert list(tmp_path.iterdir()) == [overlay]


@pytest.mark.parametrize(
    ("bundle", "file", "key", "value"), OTHERS, ids=[f"{bundle}-{key}" for bundle, _, key, _ in OTHERS]
)
def test_wrong_overrides_of_single_bundles(bundle: str, file: str, key: str, value: Any) -> None:
    assert f"{key} is " in refusal(bundle, [file], **{key: value})


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_own_overlays_are_of_the_right_kinds(overlay: Path) -> None:
    bundle = next(path for path in overlay.parents if path.name == "configs").parent.name
    files = ["evaluate.json" if bundle == "ood_eval" else "train.json"]
    files += ["evaluate.json"] if overlay.stem == "ensemble" else []
    check(bundle, [*files, str(overlay)], initialize=["$engines.check_configuration()"])


@pytest.mark.parametrize(
    "files",
    [("pretrain", "evaluate.json"), ("finetune_msd", "evaluate.json"), ("finetune_brats", "multi_gpu_train.json")],
)
def test_own_second_files_are_too(files: tuple[str, str]) -> None:
    check(files[0], ["train.json", files[1]], initialize=["$engines.check_configuration()"])


def test_setting_that_a_component_refuses() -> None:
    optimizer = {"_target_": "torch.optim.SGD", "params": "$[torch.zeros(1)]", "lr": -1}
    message = refusal("pretrain", ["train.json"], optimizer=optimizer, initialize=["$@optimizer"])
    assert message == "torch.optim.SGD refuses its settings: Invalid learning rate: -1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--seed @learnig_rate", "`@learnig_rate` is not defined"),
        pytest.param("--seed $len(", "no Python: len(", marks=pytest.mark.slow),
        pytest.param("--seed @seed", "circular", marks=pytest.mark.slow),
        pytest.param("max_epochs=3", "'max_epochs=3' is no part of the configuration", marks=pytest.mark.slow),
    ],
)
def test_references_and_words_that_cannot_be(words: str, expected: str) -> None:
    """Before the first line of the configuration is run: in a process of its own, which imports the library then."""
    files = configs("finetune_msd", "train.json")
    command = [sys.executable, "-m", "monai.bundle", "run", "training", *words.split(), "--config_file", *files]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    assert expected in run.stderr[run.stderr.index("error: ") :]
