"""The jobs of `scripts/federated_job.py` in NVIDIA FLARE's simulator: pre-training on two sites, then a fine-tuning.

Slow. SWINFUSE_FLARE_PYTHON names an interpreter with nvflare and monai-nvflare, whose pins may differ from ours.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swinfuse_components.checkpoints import read_weights
from swinfuse_components.distribution import build_package

from ..models import read_rows
from .conftest import PRETRAINED_ROI, write_msd_task, write_synthrad
from .small_runs import SMALL

pytestmark = pytest.mark.slow
PYTHON = os.environ.get("SWINFUSE_FLARE_PYTHON", sys.executable)
ROUNDS = 2
SIZE = {key: SMALL["finetune_msd"][key] for key in ("feature_size", "window_size", "num_workers", "batch_size")}


def run(repository: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(repository), "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}"}
    done = subprocess.run([PYTHON, *command], env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def simulate(repository: Path, package: Path, job: Path, sites: dict[str, dict[str, Any]], *options: str) -> Path:
    """The server's last model."""
    script = str(repository / "scripts" / "federated_job.py")
    arguments = ["--rounds", str(ROUNDS), "--output_dir", str(job), "--sites", repr(sites), *options]
    run(repository, script, str(package), *arguments)
    server = job.with_name(f"{job.name}_server")
    run(repository, "-m", "nvflare.cli", "simulator", str(job), "-w", str(server), "-c", "ct,mr", "-t", "2")
    return server / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"


def test_two_sites_pre_train_and_fine_tune(repository: Path, tmp_path: Path) -> None:
    found = subprocess.run([PYTHON, "-c", "import nvflare, monai_nvflare"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{PYTHON} has no nvflare and monai-nvflare (SWINFUSE_FLARE_PYTHON names another interpreter)")
    plan = {"rounds": ROUNDS, "max_epochs": 1, "roi_size": PRETRAINED_ROI, **SIZE}
    pairs = write_synthrad(tmp_path / "pairs", cases=3)
    settings = {**plan, "epoch_length": 2, "warmup_iterations": 1, "spacing": [4, 4, 4]}
    build_package(repository / "bundles" / "pretrain", tmp_path, settings=settings, vendor=False)
    sites = {name: {"dataset_dir": str(pairs), "modalities": [name]} for name in ("ct", "mr")}
    pretrained = simulate(repository, tmp_path / "pretrain", tmp_path / "pretraining", sites)
    before, after = read_weights(pretrained), {}
    for name in sites:
        after[name] = read_weights(tmp_path / "pretraining_runs" / name / "model_final.pt")
        assert after[name].keys() == before.keys()
        assert len(read_rows(tmp_path / "pretraining_runs" / name / "losses.csv")) == ROUNDS * 2
    # the mean of what both sites sent last, which took as many steps
    name = "swinViT.patch_embed.proj.weight"
    expected = (after["ct"][name] + after["mr"][name]) / 2
    assert (before[name] - expected).abs().max() < 1e-6

    settings = {**plan, "in_channels": 1, "out_channels": 2, "spacing": [1.0, 1.0, 1.0], "views": 1, "warmup_epochs": 1}
    build_package(repository / "bundles" / "finetune_msd", tmp_path, settings=settings, vendor=False)
    for name, channel in (("ct", "CT"), ("mr", "MRI")):
        task = write_msd_task(tmp_path / name, "Task90_Toy", (channel,), ("box",), cases=5)
        own = tmp_path / "pretraining_runs" / name / "model_final.pt"  # beside it lies who it was trained on
        sites[name] = {"dataset_dir": str(task), "start": "pretrained", "pretrained_checkpoint": str(own)}
    start = ("--pretrained_checkpoint", str(pretrained))
    model = simulate(repository, tmp_path / "finetune_msd", tmp_path / "finetuning", sites, *start)
    assert read_weights(model).keys() == read_weights(tmp_path / "finetuning_runs" / "ct" / "model_final.pt").keys()
