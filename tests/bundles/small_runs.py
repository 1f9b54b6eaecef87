"""The training bundles on volumes of a few voxels, in processes that can be killed."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import fire
import pytest
import torch
from monai.bundle import run as run_bundle

from .conftest import TINY, configs, write_data

BUNDLES = ("pretrain", "finetune_msd", "finetune_brats")
# settings that only the fine-tuning bundles have, or that pre-training calls otherwise
_PRETRAIN = {key: value for key, value in TINY.items() if key not in ("warmup_epochs", "views", "overlap")}
SMALL: dict[str, dict[str, Any]] = {
    "pretrain": {
        **_PRETRAIN,
        "roi_size": [32, 32, 64],
        "spacing": [4, 4, 4],
        "warmup_iterations": 2,
        "epoch_length": 2,
    },
    "finetune_msd": {**TINY, "num_folds": 2, "batch_size": 1},
    "finetune_brats": {**TINY, "num_folds": 2, "batch_size": 1, "spacing": [2.0, 2.0, 2.0]},
}


class Run(NamedTuple):
    """A training in another process."""

    process: BaseProcess
    log: Path

    def exit_code(self, seconds: float = 900.0) -> int | None:
        """Wait for the end; negative for a signal. ``join`` would also wait for the workers of a killed process."""
        end = time.monotonic() + seconds
        while self.process.exitcode is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.process.exitcode

    def finish(self, code: int = 0) -> str:
        """Wait for the end, which has to be with this code; returns the log."""
        found, log = self.exit_code(), self.log.read_text(encoding="utf-8")
        assert found == code, log[-3000:]
        return log


class SmallBundle:
    """A training bundle's own ``train.json``, with a small network, data made here and workers on."""

    def __init__(self, name: str, root: Path) -> None:
        self.config = Path(*configs(name, "train.json"))
        self.dataset = write_data(name, root, cases=3 if name == "pretrain" else 4)
        self.options = {**SMALL[name], "num_workers": 1, "dataset_dir": str(self.dataset)}

    def train(self, run_dir: Path, **changes: Any) -> None:
        """Train in this process."""
        options = {**self.options, **changes}
        run_bundle(run_id="training", config_file=str(self.config), logging_file=False, run_dir=str(run_dir), **options)

    def start(
        self, run_dir: Path, in_child: Callable[[], Any] | None = None, log: Path | None = None, **changes: Any
    ) -> Run:
        """Train in a process of its own."""
        log = log or run_dir.with_name(run_dir.name + ".log")
        return forked(lambda: self.train(run_dir, **changes), log, in_child)


def forked(work: Callable[[], Any], log: Path, in_child: Callable[[], Any] | None = None) -> Run:
    """Do something in a process of its own, forked: what is imported already need not be imported again."""

    def child() -> None:
        torch.set_num_threads(1)  # sums in one order, and no threads that a fork would have lost
        # as in the foreground: whoever starts the tests in the background may have them ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdout = sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # pytest has its own
        if in_child is not None:
            in_child()
        try:
            work()
        except Exception:  # shown by the hook that the configuration sets, as by Python itself
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            raise SystemExit(1) from None

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return Run(process, log)


def command(log: Path, run_id: str, *files: Path, in_child: Callable[[], Any] | None = None, **options: Any) -> Run:
    """``python -m monai.bundle run RUN_ID --config_file FILES --key value``, the words read as from a command line."""
    words = ["run", run_id, "--config_file", str([str(file) for file in files])]
    for key, value in options.items():
        words += [f"--{key}", value if isinstance(value, str) else str(value)]
    return forked(lambda: fire.Fire({"run": run_bundle}, words), log, in_child)


def places_of_two() -> list[Callable[[], None]]:
    """For ``in_child``: what ``torchrun`` tells each of two processes about its place."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [partial(os.environ.update, {"RANK": rank, "LOCAL_RANK": rank, **common}) for rank in "01"]


def message_of(run: Run) -> str:
    """The one message that a run ended with."""
    code, log = run.exit_code(), run.log.read_text(encoding="utf-8")
    if code == 42:
        pytest.skip("this system lets no process make mounts of its own")
    assert code == 1, log
    assert "Traceback" not in log, log
    assert log.count("\nerror: ") + log.startswith("error: ") == 1, log
    return log[log.index("error: ") :]
