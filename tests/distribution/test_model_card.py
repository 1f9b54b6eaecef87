"""The card says what is known of the weights, and says so when nothing is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from swinfuse_components.distribution import check_package, write_model_card
from swinfuse_components.finetuning.results import write_evaluation


@pytest.fixture
def folder(package: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(package("finetune_msd").parent / "finetune_msd", tmp_path / "finetune_msd"))


def test_card_without_facts_says_so(folder: Path) -> None:
    text = write_model_card(folder).read_text(encoding="utf-8")
    assert "these weights were not evaluated" in text
    assert "Not recorded" in text
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0" and front["library_name"] == "monai"
    assert check_package(folder) == []


def test_card_carries_recipe_and_metrics_and_their_command(folder: Path, tmp_path: Path) -> None:
    recipe = json.dumps({"learning_rate": 0.0004, "start": "pretrained"})
    (tmp_path / "configuration.json").write_text(recipe, encoding="utf-8")
    description = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))
    cases = [
        {"patient": "a", "image": "a.nii.gz", "dice": {"anterior": 0.5, "posterior": 0.25}},
        {"patient": "b", "image": "b.nii.gz", "dice": {"anterior": 0.7, "posterior": 0.75}},
    ]
    write_evaluation(tmp_path / "evaluation.json", description, cases)
    command = "python -m monai.bundle run evaluating"
    options = {"run_dir": tmp_path, "metrics": tmp_path / "evaluation.json", "command": command}
    text = write_model_card(folder, **options).read_text(encoding="utf-8")
    for line in (
        "| `learning_rate` | 0.0004 |",
        "| dice | anterior | 0.6000 |",
        "| dice | posterior | 0.5000 |",
        "Hippocampus, 2 cases",
        command,
    ):
        assert line in text
    again = write_model_card(folder, **options).read_text(encoding="utf-8")
    assert again == text, "a second call must not add a second card"
    assert text.endswith((folder / "docs" / "README.md").read_text(encoding="utf-8"))
