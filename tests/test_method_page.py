"""docs/method.md lays the paper beside the code: what it names has to exist, and to say what the paper says."""

import importlib
import json
import re
from pathlib import Path

import pytest

SENTENCES = {"2.1 Datasets": 7, "2.2 Pre-training": 13, "2.3 Loss function": 9, "2.4 Fine-tuning": 7}
ROOMS = "checkpoints|data|engines|evaluation|finetuning|losses|networks|transforms|visualization"


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "method.md").read_text(encoding="utf-8")


def test_what_the_page_names_exists(repository: Path, page: str) -> None:
    named_tests = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named_tests) > 40
    for file, name in named_tests:
        path = repository / "tests" / file
        assert path.is_file(), f"tests/{file} does not exist"
        assert re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.M), f"tests/{file} has no {name}"
    for room, dotted in re.findall(rf"`({ROOMS})\.(\w+(?:\.\w+)?)", page):
        found = importlib.import_module(f"swinfuse_components.{room}")
        for attribute in dotted.split("."):
            assert hasattr(found, attribute), f"{room}.{dotted} does not exist"
            found = getattr(found, attribute)
    for path in re.findall(r"`((?:bundles|tests)/[\w/.]+)`", page):
        assert (repository / path).exists(), path
    for overlay in re.findall(r"`(\w+\.yaml)`", page):
        assert (repository / "bundles" / "pretrain" / "configs" / overlay).is_file(), overlay


def test_keys_of_the_configurations_exist(repository: Path, page: str) -> None:
    named = re.findall(r"\*(pretrain|finetune_msd|finetune_brats)\*(?: and \*\w+\*)? `(\w+)", page)
    assert len(named) > 15
    for bundle, key in named:
        configuration = json.loads((repository / "bundles" / bundle / "configs" / "train.json").read_bytes())
        assert key in configuration, f"{bundle}/configs/train.json has no {key}"


@pytest.mark.parametrize(("section", "count"), SENTENCES.items())
def test_every_sentence_of_section_2_has_its_row(page: str, section: str, count: int) -> None:
    text = page.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith('| "')]
    assert len(rows) == count
    assert all(row.count("::test_") for row in rows), "a sentence without a test"


def test_departures_are_explained_and_used(page: str) -> None:
    tables, explanations = page.split("## Departures")
    marked = set(re.findall(r"\*\*(D\d+)\*\*", tables))
    explained = set(re.findall(r"^- \*\*(D\d+),", explanations, re.M))
    assert marked == explained


def test_figures_of_the_paper_are_the_defaults(repository: Path) -> None:
    train = json.loads((repository / "bundles" / "pretrain" / "configs" / "train.json").read_text(encoding="utf-8"))
    figures = {
        "roi_size": 96,
        "feature_size": 48,
        "learning_rate": 4e-4,
        "weight_decay": 1e-5,
        "warmup_iterations": 500,
        "temperature": 0.5,
        "inpainting_weight": 1.0,
        "rotation_weight": 1.0,
        "contrastive_weight": 1.0,
    }
    assert {key: train[key] for key in figures} == figures
    assert train["optimizer"]["_target_"].endswith("AdamW")
    assert train["lr_scheduler"]["_target_"].endswith("WarmupCosineSchedule")
