"""Trainings on two processes, as ``torchrun`` and Slurm's ``srun`` start them."""

import math
import os
import signal
import time
from pathlib import Path

import pytest

from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint

from ..models import read_rows
from .conftest import configs, write_data
from .small_runs import SMALL, Run, command, places_of_two


def start(bundle: str, root: Path, **changes: object) -> list[Run]:
    """Both processes of a training with the overlay for many GPUs, in ``root / "run"``."""
    files = [Path(path) for path in configs(bundle, "train.json", "multi_gpu_train.json")]
    options = {**SMALL[bundle], "dataset_dir": write_data(bundle, root, cases=4), "run_dir": root / "run", **changes}
    return [
        command(root / f"{rank}.log", "training", *files, in_child=place, **options)
        for rank, place in enumerate(places_of_two())
    ]


@pytest.mark.parametrize(
    "bundle", ["pretrain", *(pytest.param(b, marks=pytest.mark.slow) for b in ("finetune_msd", "finetune_brats"))]
)
def test_two_processes_train_together(bundle: str, tmp_path: Path) -> None:
    for run in start(bundle, tmp_path):
        run.finish()
    rows = read_rows(tmp_path / "run" / "losses.csv")
    assert len(rows) == (2 if bundle == "pretrain" else 1)
    assert len(read_checkpoint(checkpoints_of(tmp_path / "run")[-1])["random"]) == 2
    assert (tmp_path / "run" / "model.pt").is_file()
    if bundle == "pretrain":  # negatives from both processes
        bound = float(rows[0]["contrastive"]) / float(rows[0]["contrastive_of_bound"])
        assert bound == pytest.approx(math.log(2 * 4 - 1), rel=1e-5)


@pytest.mark.slow
def test_killing_one_process_ends_the_other_within_a_minute(tmp_path: Path) -> None:
    first, second = start("pretrain", tmp_path, epoch_length=10000)
    table, end = tmp_path / "run" / "losses.csv", time.monotonic() + 500
    try:
        while not table.is_file() or len(table.read_text(encoding="utf-8").splitlines()) < 3:
            assert first.process.is_alive() and second.process.is_alive(), first.log.read_text(encoding="utf-8")
            assert time.monotonic() < end
            time.sleep(0.2)
        os.kill(second.process.pid or 0, signal.SIGKILL)
        assert first.exit_code(60) == 1
        assert "error: rank 0 of 2 lost another process of this run" in first.log.read_text(encoding="utf-8")
    finally:
        for run in (first, second):
            run.process.kill()
