"""The card says what is known of the weights, and says so when nothing is."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from monai.bundle import push_to_hf_hub

from swinfuse_components.distribution import check_package, write_model_card
from swinfuse_components.distribution.checks import REQUIRED_FILES
from swinfuse_components.evaluation import write_evaluation


@pytest.fixture
def folder(unpacked: Callable[[str], Path]) -> Path:
    return unpacked("finetune_msd")


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
    write_evaluation(tmp_path / "evaluation.json", description, cases, fold=0)
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


class Hub:
    """What MONAI asks of the hub's client, which would go to the network; keeps what it was given."""

    def __init__(self, token: str | None = None) -> None:
        self.calls: dict[str, dict[str, Any]] = {}

    def create_repo(self, **arguments: Any) -> None:
        self.calls["create_repo"] = arguments

    def upload_folder(self, **arguments: Any) -> str:
        root = Path(arguments["folder_path"])
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self.calls["upload_folder"] = arguments | {"files": files}
        return f"https://hub/{arguments['repo_id']}"

    def create_tag(self, **arguments: Any) -> None:
        self.calls["create_tag"] = arguments


def test_push_to_the_hub_takes_the_folder_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model_card(folder)
    hub = Hub()
    monkeypatch.setattr("monai.bundle.scripts.huggingface_hub", SimpleNamespace(HfApi=lambda token: hub))
    address = push_to_hf_hub("user/finetune_msd", "finetune_msd", str(folder.parent), version="0.1.0")
    assert address == "https://hub/user/finetune_msd"
    assert hub.calls["create_tag"]["tag"] == "0.1.0"
    files = hub.calls["upload_folder"]["files"]
    assert {*REQUIRED_FILES, "models/model.json", "README.md", "scripts/networks/segmentation.py"} <= set(files)
    _, front, text = files["README.md"].decode().split("---", 2)
    assert yaml.safe_load(front) == {"tags": ["monai", "medical"], "library_name": "monai", "license": "apache-2.0"}
    assert text.lstrip("\n").encode() == files["docs/README.md"]
    assert check_package(folder) == []
