"""Records of two short runs as they once were: columns and keys exactly, numbers as far as processors agree.

Rounding differs from one processor to the next and grows with every step, so that the files themselves cannot be equal.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .conftest import TINY, pretrain_two_steps, write_msd_task

GOLDEN = Path(__file__).parent / "golden"


def assert_alike(found: Any, golden: Any, where: str = "") -> None:
    """The same keys in the same order, text and flags equal, numbers to 1 %."""
    if isinstance(golden, dict):
        assert list(found) == list(golden), where
        for key, value in golden.items():
            assert_alike(found[key], value, f"{where}/{key}")
    elif isinstance(golden, list) and isinstance(found, list):
        assert len(found) == len(golden), where
        for number, value in enumerate(golden):
            assert_alike(found[number], value, f"{where}/{number}")
    elif isinstance(golden, float):
        assert found == pytest.approx(golden, rel=0.01, abs=1e-3, nan_ok=True), where
    else:
        assert found == golden, where


def test_losses_of_two_steps_of_pre_training(tmp_path: Path) -> None:
    run = pretrain_two_steps(tmp_path, "pretext_tasks.yaml")
    found, golden = (pd.read_csv(folder / "losses.csv") for folder in (run, GOLDEN))
    assert_alike(found.to_dict("list"), golden.to_dict("list"))


def test_description_of_a_fine_tuned_model(run_bundle: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_msd_task(tmp_path, "Task90_ToyCT", ("CT",), ("box",), cases=4, spacing=(2.0, 2.0, 2.0))
    options = {**TINY, "num_folds": 2, "fold": 0, "dataset_dir": str(folder), "run_dir": str(tmp_path / "run")}
    run_bundle("finetune_msd", ["train.json", "random_contrast.yaml"], "training", **{**options, "val_interval": 0})
    found = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    assert_alike(found, json.loads((GOLDEN / "model.json").read_text(encoding="utf-8")))
