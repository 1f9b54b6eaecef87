"""Each training bundle killed over and over, half of it while it writes: resumed, it is the run uninterrupted."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swinfuse_components import engines
from swinfuse_components.engines import files
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint

from ..models import read_rows
from .small_runs import BUNDLES, SmallBundle

# epochs for each number of kills: more steps, two an epoch, than so many kills let pass
EPOCHS = {2: 2, 10: 8}


def kill_in_writing(number: int, fraction: float) -> Callable[[], None]:
    """Die while the ``number``-th file of checkpoints is written, ``fraction`` of it."""
    fsync, calls = os.fsync, iter(range(1, 10**6))

    def last(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        if name.startswith(".checkpoint_iteration=") and next(calls) == number:
            os.truncate(descriptor, int(os.fstat(descriptor).st_size * fraction))
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    def install() -> None:
        files.os.fsync = last  # type: ignore[assignment]

    return install


def kill_after(step: int, seconds: float) -> Callable[[], None]:
    """Die ``seconds`` after the ``step``-th step of this process has begun: in a step, a validation, a saving."""
    started, steps = engines.RunCheckpoint._iteration_started, iter(range(1, 10**6))

    def count(self: engines.RunCheckpoint, engine: object) -> None:
        if next(steps) == step:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        started(self, engine)  # type: ignore[arg-type]

    def install() -> None:
        engines.RunCheckpoint._iteration_started = count  # type: ignore[method-assign]

    return install


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("finetune_msd", 2),
        pytest.param("pretrain", 2, marks=pytest.mark.slow),
        pytest.param("finetune_brats", 2, marks=pytest.mark.slow),
        *(pytest.param(name, 10, marks=pytest.mark.slow) for name in BUNDLES),
    ],
)
def test_killed_and_resumed_is_the_run_uninterrupted(name: str, kills: int, tmp_path: Path) -> None:
    bundle = SmallBundle(name, tmp_path / "data")
    bundle.options |= {"max_epochs": EPOCHS[kills], "val_interval": 2 if kills > 2 else 1, "checkpoint_interval": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begin = time.monotonic()
    bundle.start(whole).finish()

    about_a_step = (time.monotonic() - begin) / (2 * EPOCHS[kills])
    rng = random.Random(name)
    cut_short = 0  # killed with a checkpoint half written
    for kill in range(kills):
        if kill % 2:
            method = kill_after(1, rng.uniform(0, about_a_step))
        else:
            method = kill_in_writing(rng.randint(1, 2) if kill else 1, rng.random())
        bundle.start(killed, method, resume=True).finish(-signal.SIGKILL)
        cut_short += bool(list(killed.glob(".checkpoint_iteration=*.pt.[0-9]*.tmp")))
    assert cut_short >= 1
    bundle.start(killed, resume=True).finish()
    assert not list(killed.glob(".*.tmp"))

    for table in ("losses.csv", "validation.csv"):
        assert read_rows(killed / table) == read_rows(whole / table)
    assert len(read_rows(whole / "losses.csv")) == 2 * EPOCHS[kills]
    ours, theirs = (read_checkpoint(checkpoints_of(folder)[-1]) for folder in (killed, whole))
    assert ours["trainer"] == theirs["trainer"] and ours["evaluator"] == theirs["evaluator"]
    for key, value in theirs["model"].items():
        assert torch.equal(ours["model"][key], value), key
    best, expected = (torch.load(folder / "model.pt", weights_only=True)["model"] for folder in (killed, whole))
    assert all(torch.equal(best[key], expected[key]) for key in expected)
