"""Guards of a training run: exact resume, a loss that is not finite, signals to stop."""

import json
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.handlers import EarlyStopHandler
from monai.utils.enums import CommonKeys as Keys

from .checkpointing import RunCheckpoint
from .configuration import federated, running_configuration
from .files import atomic_write
from .logs import term_values

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 75
"""Exit code of a run that was stopped by a signal: "temporary failure, try again" (sysexits.h)."""


class NonFiniteLossError(RuntimeError):
    """The loss was NaN or infinite."""


class StopSignals:
    """SIGTERM, SIGINT and SIGHUP as a wish to stop, which whoever saves the run fulfils; one for the whole process.

    The first signal is remembered while ``saving`` is true, and otherwise ends the process at once with
    :data:`EXIT_INTERRUPTED`. A second one ends it at once in any case. A signal that is ignored (``nohup``) stays so.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.saving = False
        self._previous: dict[int, Any] = {}
        self._process = 0

    def install(self, owner: object = None) -> None:
        """Catch the signals until a training has ended or ``owner`` is gone; nothing outside of the main thread.

        A server that trained in its own process has to end as before.
        """
        if self._previous or threading.current_thread() is not threading.main_thread():
            return
        self.received, self._process = None, os.getpid()
        if owner is not None:
            weakref.finalize(owner, self.uninstall)
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)

    def uninstall(self) -> None:
        """Put back what was there before."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}
        self.saving = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker, which its process ends
            return
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)
        self.received = number
        name = signal.Signals(number).name
        if not self.saving:
            print(f"stopped by {name}: what is finished stays, the same command does the rest", file=sys.stderr)
            raise SystemExit(EXIT_INTERRUPTED)
        print(f"{name}: stopping after this step; a second signal ends the run without saving", file=sys.stderr)


stop_signals = StopSignals()


class RunGuard:
    """Make a training safe to leave alone: save and resume it, stop at a bad loss, stop and save on a signal.

    - Everything that an exact continuation needs is saved and restored, see :class:`RunCheckpoint`.
    - A loss that is NaN or infinite stops the run before the network is changed by it; the state before the step is
      saved, and the error names iteration, loss terms, files and checkpoint.
    - On SIGTERM, SIGINT or SIGHUP the running step is finished, the state saved, and the process ends with exit code
      75, so that a scheduler can queue it again with ``--resume True``. In a validation the state before it is saved,
      and resuming repeats it (a distributed run finishes it first). A second signal ends the run at once.
    - ``configuration.json`` and ``records`` are written when everything has been accepted and the first step is about
      to begin. A run that is refused writes nothing. A federated client's evaluation reads them before the first round:
      there they are written when the trainer is built.

    It has to be the first of a trainer's handlers.

    Arguments are those of :class:`RunCheckpoint`; a MONAI ``EarlyStopHandler`` among its ``objects`` is attached to its
    ``evaluator`` and told of the trainer. ``records`` are further JSON files for ``run_dir``, by name.

    Raises:
        NonFiniteLossError: (during the run) as above.
        SystemExit: (during the run) after a signal, with code :data:`EXIT_INTERRUPTED`.
        ValueError, OSError: as :class:`RunCheckpoint`.
    """

    def __init__(self, *checkpoint: Any, records: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.checkpoint = RunCheckpoint(*checkpoint, **options)
        self.records = dict(records or {})
        if (configuration := running_configuration()) is not None:
            self.records["configuration.json"] = configuration
        self._trainer: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self._trainer = engine
        for thing in self.checkpoint.objects.values():
            if isinstance(thing, EarlyStopHandler):
                thing.set_trainer(engine)
                thing.attach(self.checkpoint.evaluator)
        self.checkpoint.attach(engine)
        if federated() and idist.get_rank() == 0:
            self.write_records()
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._check_loss)
        for event in (Events.COMPLETED, Events.TERMINATE):
            engine.add_event_handler(event, self._nothing_to_save)

    def write_records(self) -> None:
        """Write the records; one of other content that an earlier run left is kept."""
        for name, content in self.records.items():
            write_record(self.checkpoint.run_dir / name, content)

    def _started(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            self.write_records()
        stop_signals.install()
        stop_signals.saving = True
        # after all other handlers of these events, as the checkpoint's own
        if not engine.has_event_handler(self._after_step, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
            engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, stop_signals.uninstall)
            if idist.get_world_size() == 1:
                self.checkpoint.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._in_validation)

    def _nothing_to_save(self) -> None:
        stop_signals.saving = False

    def _check_loss(self, engine: Engine) -> None:
        finite = bool(torch.isfinite(engine.state.output[Keys.LOSS]).all())
        if not _any_process(not finite):
            return
        iteration, loader = engine.state.iteration, self.checkpoint.data_loader
        saved = self.checkpoint.save_before_step(engine)
        values = ", ".join(f"{name} {value:g}" for name, value in term_values(engine.state.output).items())
        files = loader.describe_batch(iteration - 1) if hasattr(loader, "describe_batch") else []
        raise NonFiniteLossError(
            f"the loss of iteration {iteration} is not finite ({values})"
            + (" in another process" if finite else "")
            + (f"; the batch was {'; '.join(files)}" if files else "")
            + f"; the state before this step is in {saved}"
        )

    def _after_step(self, engine: Engine) -> None:
        if not _any_process(stop_signals.received is not None):
            return
        if engine.state.iteration % engine.state.epoch_length == 0:
            self._stop(engine, self.checkpoint.save_before_validation())
        self._stop(engine, self.checkpoint.save(engine))

    def _in_validation(self, engine: Engine) -> None:
        if stop_signals.received is not None and self._trainer is not None:
            self._stop(self._trainer, self.checkpoint.save_before_validation())

    def _after_epoch(self, engine: Engine) -> None:
        if _any_process(stop_signals.received is not None):
            self._stop(engine, self.checkpoint.save(engine))

    def _stop(self, engine: Engine, saved: Path) -> None:
        number = stop_signals.received
        name = "a signal to another process" if number is None else signal.Signals(number).name
        stop_signals.uninstall()
        logger.warning(
            f"stopped by {name} after iteration {engine.state.iteration}; the state is in {saved}: "
            "continue with '--resume True'"
        )
        raise SystemExit(EXIT_INTERRUPTED)


def write_record(path: Path, content: Any) -> None:
    """Write JSON; a file with other content is kept as ``<name>.previous``."""
    with atomic_write(path, keep_other=True) as file:
        file.write(json.dumps(content, indent=4, default=str) + "\n")


def _any_process(flag: bool) -> bool:
    """Whether ``flag`` is true in any process, so that all take the same turn."""
    return bool(idist.all_reduce(float(flag), op="MAX"))
