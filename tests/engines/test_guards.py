import errno
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import EPOCH_LENGTH, ToyRun, assert_equal_runs, make_items, start

from swinfuse_components import engines
from swinfuse_components.engines import files
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint
from swinfuse_components.losses import PretrainingLoss

STEPS = 3 * EPOCH_LENGTH + 3 * 2  # of training and validation


def at_file_operation(folder: Path, wanted: int, log: Path | None = None) -> Callable[[], None]:
    """Die before the ``wanted``-th opening, renaming, removal or flush in a folder; 0: only write them down."""

    def install() -> None:
        count, fsync, busy = 0, os.fsync, False

        def operation(name: str, path: object) -> None:
            nonlocal count, busy
            if busy or not str(path).startswith(str(folder)):
                return
            count += 1
            if count == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            if log is not None:
                busy = True
                with log.open("a", encoding="utf-8") as file:
                    file.write(f"{name} {Path(str(path)).name}\n")
                busy = False

        def flush(descriptor: int) -> None:
            operation("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event in ("open", "os.rename", "os.remove", "os.truncate"):
                operation(event, arguments[0])

        files.os.fsync = flush  # type: ignore[assignment]
        sys.addaudithook(audit)

    return install


def test_killed_ten_times_anywhere_and_resumed(reference: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, half of them while a file is being written; workers on."""
    rng = random.Random(0)
    kills = 0
    while kills < 10:
        in_writing = kills % 2 == 0
        run = start(
            tmp_path,
            resume=True,
            num_workers=1,
            seconds=0.02,
            in_child=at_file_operation(tmp_path, rng.randrange(1, 20)) if in_writing else None,
        )
        if not in_writing:
            for _ in range(rng.randrange(1, 4)):
                assert run.steps.acquire(timeout=60)
            run.process.kill()
        if run.exit_code() == 0:
            break
        assert run.exit_code() == -signal.SIGKILL
        kills += 1
    assert kills >= 5
    if run.exit_code() != 0:
        last = start(tmp_path, resume=True, num_workers=1)
        assert last.exit_code() == 0
    assert_equal_runs(tmp_path, reference)


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_each_file_operation_and_resumed(stride: int, tmp_path: Path) -> None:
    """Each opening, renaming, removal and flush of a file of one run: what is resumed is that run."""
    options = {"max_epochs": 2, "epoch_length": 2, "interval": 1}
    whole, log = tmp_path / "whole", tmp_path / "operations"
    run = start(whole, in_child=at_file_operation(whole, 0, log), **options)
    assert run.exit_code() == 0
    operations = log.read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in operations} == {"open", "os.rename", "os.remove", "fsync"}
    assert len(operations) > 30
    for number, name in list(enumerate(operations, start=1))[::stride]:
        folder = tmp_path / str(number)
        killed = start(folder, in_child=at_file_operation(folder, number), **options)
        assert killed.exit_code() == -signal.SIGKILL, name
        assert start(folder, resume=True, **options).exit_code() == 0, name
        assert_equal_runs(folder, whole)


@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGINT, 2), *((signal.SIGTERM, step) for step in (2, EPOCH_LENGTH, EPOCH_LENGTH + 1, STEPS))],
    ids=["Ctrl-C", "epoch", "last", "validation", "end"],
)
def test_signal_saves_and_ends_with_its_code(reference: Path, tmp_path: Path, number: int, step: int) -> None:
    run = start(tmp_path, seconds=0.3 if step < STEPS else 0.1, interval=0, num_workers=1)
    for _ in range(step):
        assert run.steps.acquire(timeout=60)
    os.kill(run.process.pid or 0, number)
    assert run.exit_code() == engines.EXIT_INTERRUPTED == 75
    iteration = read_checkpoint(checkpoints_of(tmp_path)[-1])["trainer"]["iteration"]
    assert iteration == {2: 2, EPOCH_LENGTH: EPOCH_LENGTH, EPOCH_LENGTH + 1: EPOCH_LENGTH, STEPS: 12}[step]
    if step != STEPS:
        assert "epoch_closed" in read_checkpoint(checkpoints_of(tmp_path)[-1])["trainer"]
    ToyRun(tmp_path, resume=True, interval=0).run()
    assert_equal_runs(tmp_path, reference)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ToyRun(tmp_path, max_epochs=1).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_run_in_a_folder_is_refused(tmp_path: Path) -> None:
    first = start(tmp_path, seconds=0.2)
    assert first.steps.acquire(timeout=60)
    second = start(tmp_path)
    assert second.exit_code() == 1
    assert "another process is running in" in (tmp_path / "error").read_text(encoding="utf-8")
    first.process.kill()
    assert first.exit_code() == -signal.SIGKILL
    third = start(tmp_path, resume=True, max_epochs=3)  # the lock of a killed process is gone
    assert third.exit_code() == 0


class NanAt:
    """The loss of pre-training, which is NaN at one iteration."""

    def __init__(self, iteration: int) -> None:
        self.loss, self.iteration, self.calls = PretrainingLoss(), iteration, 0

    def __call__(self, *args: Any) -> dict[str, torch.Tensor]:
        self.calls += 1
        terms = self.loss(*args)
        return {**terms, "loss": terms["loss"] * (float("nan") if self.calls == self.iteration else 1.0)}


@pytest.mark.parametrize("iteration", [1, 3, EPOCH_LENGTH + 1])
def test_loss_that_is_not_finite_stops_and_names_the_files(reference: Path, tmp_path: Path, iteration: int) -> None:
    run = ToyRun(tmp_path, interval=0, loss=NanAt(iteration))
    with pytest.raises(engines.NonFiniteLossError) as error:
        run.run()
    drawn = [make_items()[index]["image"] for index, *_ in run.loader.order.batch(iteration - 1)]
    for words in (f"iteration {iteration}", "loss nan", *drawn, checkpoints_of(tmp_path)[-1].name):
        assert words in str(error.value)
    assert read_checkpoint(checkpoints_of(tmp_path)[-1])["trainer"]["iteration"] == iteration - 1
    ToyRun(tmp_path, interval=0, resume=True).run()  # with a sound loss: as if nothing had happened
    assert_equal_runs(tmp_path, reference)


def test_write_error_names_the_file_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    files.atomic_save({"a": torch.ones(3)}, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*weights.pt: No space left on device"):
        files.atomic_save({"a": torch.zeros(3)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pt"]
