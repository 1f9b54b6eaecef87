"""Handlers for what can go wrong in a run: a loss that is not finite, a signal to stop, two runs in one folder."""

from __future__ import annotations

import atexit
import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from .distributed import any_process, is_distributed, rank
from .run_checkpoint import RunCheckpoint

EXIT_INTERRUPTED = 75
"""Exit code of a run that was stopped by a signal and saved: "temporary failure, try again" (sysexits.h)."""

_locks: dict[Path, FileLock] = {}


class NonFiniteLossError(RuntimeError):
    """The loss was NaN or infinite."""


class NonFiniteGuard:
    """Stop when the loss is NaN or infinite, before the network is changed by it.

    The state before the step is saved first, so the run can be continued from there once the cause is removed.

    Args:
        checkpoint: saves that state; none is saved if None.
        data_loader: a ``ResumableDataLoader``, to name the files of the batch.

    Raises:
        NonFiniteLossError: (during the run) names the iteration, the loss terms, the files and the checkpoint.
    """

    def __init__(self, checkpoint: RunCheckpoint | None = None, data_loader: Any = None) -> None:
        self.checkpoint = checkpoint
        self.data_loader = data_loader

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = engine.state.output[Keys.LOSS]
        finite = bool(torch.isfinite(loss).all())
        if not any_process(not finite, device=loss.device):
            return
        iteration = engine.state.iteration
        saved = None if self.checkpoint is None else self.checkpoint.save_before_step(engine)
        terms = engine.state.output.get("terms", {"loss": loss})
        values = ", ".join(f"{name} {float(value):g}" for name, value in terms.items())
        files: list[str] = []
        if hasattr(self.data_loader, "describe_batch"):
            files = self.data_loader.describe_batch(iteration - 1)
        raise NonFiniteLossError(
            f"the loss of iteration {iteration} is not finite ({values})"
            + ("" if not finite else " in another process")
            + (f"; the batch was {'; '.join(files)}" if files else "")
            + (f"; the state before this step is in {saved}" if saved else "")
        )


class StopOnSignal:
    """On SIGTERM or SIGINT finish the running step, save, and end with exit code 75.

    Schedulers such as Slurm send SIGTERM before they take a node back; a restart with ``--resume True`` goes on from
    that very step. A second signal ends the run at once. During validation there is no step to finish: the state
    before it is saved, and resuming repeats the validation (in a distributed run the signal waits for its end).

    Args:
        checkpoint: saves the state.
        evaluator: of the validation, so that a long one can be cut short.

    Raises:
        SystemExit: (during the run) with code :data:`EXIT_INTERRUPTED`.
    """

    def __init__(
        self,
        checkpoint: RunCheckpoint,
        evaluator: Engine | None = None,
        signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        self.checkpoint = checkpoint
        self.evaluator = evaluator
        self.signals = signals
        self.received: int | None = None
        self.logger = logging.getLogger(__name__)
        self._previous: dict[int, Any] = {}
        self._trainer: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self._trainer = engine
        engine.add_event_handler(Events.STARTED, self._install)
        engine.add_event_handler(Events.COMPLETED, self._uninstall)

    def _install(self, engine: Engine) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.logger.warning("not in the main thread: SIGTERM and SIGINT keep their usual effect")
            return
        self.received = None
        self._previous = {number: signal.signal(number, self._receive) for number in self.signals}
        # after all other handlers of these events, as the checkpoint's own
        if not engine.has_event_handler(self._after_step, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
            if self.evaluator is not None and not is_distributed():
                self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._in_validation)

    def _uninstall(self, engine: Engine) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt(f"second signal, {signal.Signals(number).name}: ending at once")
        self.received = number

    def _after_step(self, engine: Engine) -> None:
        if not any_process(self.received is not None, device=engine.state.device):
            return
        if engine.state.epoch_length and engine.state.iteration % engine.state.epoch_length == 0:
            self._stop(engine, self.checkpoint.save_before_validation())
        self._stop(engine, self.checkpoint.save(engine))

    def _in_validation(self, engine: Engine) -> None:
        if self.received is not None and self._trainer is not None:
            self._stop(self._trainer, self.checkpoint.save_before_validation())

    def _after_epoch(self, engine: Engine) -> None:
        if any_process(self.received is not None, device=engine.state.device):
            self._stop(engine, self.checkpoint.save(engine))

    def _stop(self, engine: Engine, saved: Path) -> None:
        self._uninstall(engine)
        name = signal.Signals(self.received).name if self.received is not None else "a signal to another process"
        self.logger.warning(
            f"stopped by {name} after iteration {engine.state.iteration}; the state is in {saved}: "
            "continue with '--resume True'"
        )
        raise SystemExit(EXIT_INTERRUPTED)


def lock_run_dir(run_dir: str | Path) -> None:
    """Claim a run's folder for this process until it ends; the system lets go of it however the process ends.

    Raises:
        RuntimeError: another process works in the folder; names its process and host.
        OSError: the folder cannot be made or written to.
    """
    if rank() != 0:
        return
    directory = Path(run_dir).resolve()
    if directory in _locks:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"another process is running in {directory} (it holds {directory / '.lock'}): wait for its end, or give "
            "this run a folder of its own with '--run_dir'"
        ) from error
    except OSError as error:
        raise OSError(error.errno, f"cannot write to the run's folder {directory}: {error.strerror}") from error
    _locks[directory] = lock
    atexit.register(lock.release)
