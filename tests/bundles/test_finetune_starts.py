"""Where fine-tuning starts, and what learns how fast, through the configuration as users set it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from swinfuse_components.finetuning import load_starting_point
from swinfuse_components.networks import SwinFUSE

from ..models import read_rows
from .conftest import PRETRAINED_ROI, TINY, write_msd_task

Run = Callable[..., ConfigWorkflow]


def encoder_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key.startswith("swinViT.")}


@pytest.fixture
def start_from(run_bundle: Run, tmp_path: Path) -> Callable[..., tuple[ConfigWorkflow, dict[str, torch.Tensor]]]:
    """Train a toy task with overlays and overrides: the workflow, and the weights at the end."""

    def train(*overlays: str, **options: Any) -> tuple[ConfigWorkflow, dict[str, torch.Tensor]]:
        given = {**TINY, "roi_size": PRETRAINED_ROI, "num_folds": 2, "val_interval": 0, **options}
        folder, run_dir = write_msd_task(tmp_path, cases=2), tmp_path / "run"
        files = ["train.json", *overlays]
        workflow = run_bundle("finetune_msd", files, "training", dataset_dir=str(folder), run_dir=str(run_dir), **given)
        return workflow, torch.load(run_dir / "model_final.pt", weights_only=True)["model"]

    return train


def test_pre_training_stays_frozen_while_the_decoder_learns_and_layers_have_their_rates(
    start_from: Callable[..., Any], pretrained_run: Path
) -> None:
    source = torch.load(pretrained_run / "model.pt", weights_only=True)["model"]
    workflow, trained = start_from("pretrained.yaml", pretrained_checkpoint=str(pretrained_run / "model.pt"))
    encoder = encoder_of(trained)
    assert [key for key in encoder if "domain_invariance" in key]
    assert all(torch.equal(value, source[key]) for key, value in encoder.items())
    optimizer = workflow.parser.get_parsed_content("optimizer")
    stepped = [any(parameter in optimizer.state for parameter in group["params"]) for group in optimizer.param_groups]
    assert stepped == [False] * 5 + [True]
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-4 * 0.75**depth for depth in (5, 4, 3, 2, 1, 0)])


def test_swin_unetr_weights_fill_the_encoder_and_leave_the_module(
    start_from: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    network = SwinFUSE(1, 2, PRETRAINED_ROI, 12, window_size=4, dim="none", downsample="legacy")
    source = encoder_of(network.state_dict())
    names = {key: "module." + key.removeprefix("swinViT.").replace("mlp.linear", "mlp.fc") for key in source}
    checkpoint = tmp_path / "model_swinvit.pt"
    torch.save({"state_dict": {names[key]: value for key, value in source.items()}}, checkpoint)
    # at a rate of next to nothing the weights at the end are those of the start
    workflow, trained = start_from(
        "swin_unetr_ct.yaml", swin_unetr_checkpoint=str(checkpoint), learning_rate=1e-12, weight_decay=0.0
    )
    torch.testing.assert_close({key: trained[key] for key in source}, source, rtol=0, atol=1e-9)
    assert set(encoder_of(trained)) - set(source) and workflow.parser.get_parsed_content("downsample") == "legacy"


def test_training_stops_early_and_writes_every_region(start_from: Callable[..., Any], tmp_path: Path) -> None:
    # at a rate of next to nothing the second validation cannot be better than the first
    start_from(learning_rate=1e-12, weight_decay=0.0, early_stop_patience=1, max_epochs=6, val_interval=1, batch_size=1)
    rows = read_rows(tmp_path / "run" / "validation.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["val_dice_box"] == rows[0]["val_mean_dice"]
    described = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    assert described["start"] == "scratch" and described["pretraining_patients"] == []


def test_a_start_is_loaded_or_refused(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    before = network.weight.clone()
    assert load_starting_point(network, "scratch", {}) is None and torch.equal(network.weight, before)
    with pytest.raises(ValueError, match="'imagenet' is unknown, expected one of .'scratch', 'pretrained'."):
        load_starting_point(network, "imagenet", {"pretrained": "x.pt"})
    with pytest.raises(FileNotFoundError, match=r"start='pretrained': no checkpoint at .*x\.pt"):
        load_starting_point(network, "pretrained", {"pretrained": tmp_path / "x.pt"})
