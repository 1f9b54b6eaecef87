"""Handlers that save the whole state of a training run and the best model, and continue a run exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn

from .checkpoint_files import (
    checkpoint_path,
    checkpoints_of,
    newest_sound,
    prune,
    read_checkpoint,
)
from .distributed import broadcast, gather, rank, world_size
from .files import atomic_save
from .random_state import get_random_state, set_random_state
from .training_state import RESERVED_NAMES, collect_state, restore_state


class RunCheckpoint:
    """Save everything a training run needs to continue exactly, and restore it.

    A checkpoint ``<run_dir>/checkpoint_iteration=<n>.pt`` is a dictionary of tensors and builtins: the state of every
    object in ``objects`` under its name (``model``, ``optimizer``, ``lr_scheduler``, ...), ``trainer`` (iteration and
    epochs), ``scaler`` of mixed precision, ``evaluator`` (best metric and its epoch), ``random`` (Python, NumPy,
    PyTorch and CUDA states of every process), ``data`` (length of the data list) and, between two optimiser steps of
    accumulated gradients, ``gradients``. Files are written atomically, by the first process only; the
    last ``keep`` stay. Order and augmentation of the data need no state with
    :class:`~swinfuse_components.engines.ResumableDataLoader`.

    Put it **first** among the trainer's handlers: it restores before the others look at the state, and when the run
    starts it takes the last place for saving.

    Args:
        run_dir: folder of the run.
        objects: by name, what has ``state_dict`` and ``load_state_dict``. Give the plain network, not its
            distributed or compiled wrapper.
        data_loader: of the training; the data resume exactly if it is a ``ResumableDataLoader``.
        evaluator: of the validation, whose best metric has to survive.
        interval: save every so many iterations as well as at the end of each epoch; 0 for epochs alone.
        keep: number of checkpoints that stay.
        resume: continue from the newest sound checkpoint of the folder, from the start if there is none.
        extend: allow ``max_epochs`` to differ from that of the checkpoint; the learning-rate schedule then follows
            the new plan.

    Raises:
        FileExistsError: (when the run starts) the folder has checkpoints and ``resume`` is off.
        ValueError: (when the run starts) no checkpoint of the folder is sound, or it belongs to another network,
            epoch length or, without ``extend``, number of epochs.
        OSError: a checkpoint cannot be written; the previous ones are intact.
    """

    def __init__(
        self,
        run_dir: str | Path,
        objects: Mapping[str, Any],
        data_loader: Any = None,
        evaluator: Engine | None = None,
        interval: int = 0,
        keep: int = 2,
        resume: bool = False,
        extend: bool = False,
        name: str | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1 checkpoint, got {keep}")
        if set(objects) & set(RESERVED_NAMES):
            raise ValueError(f"objects: the names {sorted(set(objects) & set(RESERVED_NAMES))} are taken")
        self.run_dir = Path(run_dir)
        self.objects = dict(objects)
        self.data_loader = data_loader
        self.evaluator = evaluator
        self.interval = interval
        self.keep = keep
        self.resume = resume
        self.extend = extend
        self.logger = logging.getLogger(name or __name__)
        self._random_before: dict[str, Any] | None = None  # of the running iteration
        self._random_resumed: dict[str, Any] | None = None  # to put back when the first iteration starts
        self._epoch_end: dict[str, Any] | None = None  # state after an epoch's last step, before its validation

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration_started)

    def save(self, engine: Engine) -> Path:
        """Save the present state. In a distributed run all processes have to call this together."""
        return self._write(self._state(engine), get_random_state())

    def save_before_step(self, engine: Engine) -> Path:
        """Save the state before the running iteration, from within it and before the optimiser's step."""
        state = self._state(engine, engine.state.iteration - 1)
        return self._write(state, get_random_state() if self._random_before is None else self._random_before)

    def save_before_validation(self) -> Path:
        """Save the state an epoch's last step left, from within its validation, which is repeated on resuming."""
        if self._epoch_end is None:
            raise RuntimeError("save_before_validation() called outside of the closing of an epoch")
        state = dict(self._epoch_end)
        state["trainer"] = {**state["trainer"], "epoch_closed": False}
        return self._write(state, state["random"])

    def _write(self, state: dict[str, Any], random_state: dict[str, Any]) -> Path:
        state["random"] = gather(random_state)
        path = checkpoint_path(self.run_dir, state["trainer"]["iteration"])
        if rank() == 0:
            atomic_save(state, path)
            prune(self.run_dir, self.keep)
        return path

    def _state(self, engine: Engine, iteration: int | None = None) -> dict[str, Any]:
        iteration = engine.state.iteration if iteration is None else iteration
        return collect_state(engine, self.objects, self.evaluator, self.data_loader, iteration)

    def _start(self, engine: Engine) -> None:
        existing = checkpoints_of(self.run_dir)
        if existing and not self.resume:
            raise FileExistsError(
                f"{self.run_dir} holds checkpoints of an earlier run (newest: {existing[-1].name}): continue it with "
                "'--resume True', or give this run a folder of its own with '--run_dir'"
            )
        epoch_closed = self._restore(engine) if self.resume else True
        if not engine.has_event_handler(self._epoch_completed, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        if not epoch_closed:  # ignite still calls a handler added while its event fires, after all others
            engine.add_event_handler(Events.STARTED, self._close_epoch)

    def _restore(self, engine: Engine) -> bool:
        """Load the newest sound checkpoint; False if the epoch it ends has still to be closed."""
        newest = broadcast(newest_sound(self.run_dir, self.logger) if rank() == 0 else None)
        if newest is None:
            self.logger.info(f"nothing to resume in {self.run_dir}: starting from the beginning")
            return True
        state = read_checkpoint(newest)
        restore_state(
            state, engine, self.objects, self.evaluator, self.data_loader, self.extend, str(newest), self.logger
        )
        if len(state["random"]) == world_size():
            self._random_resumed = state["random"][rank()]
        else:
            self.logger.warning(
                f"{newest} was made by {len(state['random'])} processes, this run has {world_size()}: "
                "the random states of the network start anew"
            )
        self.logger.info(f"resumed from {newest} after iteration {state['trainer']['iteration']}")
        return bool(state["trainer"]["epoch_closed"])

    def _put_random_state_back(self) -> None:
        if self._random_resumed is not None:
            set_random_state(self._random_resumed)
            self._random_resumed = None

    def _close_epoch(self, engine: Engine) -> None:
        """Repeat the closing (validation, best model) of an epoch that was interrupted after its last step."""
        engine.remove_event_handler(self._close_epoch, Events.STARTED)
        self._put_random_state_back()
        self._remember_epoch_end(engine)
        engine.fire_event(Events.EPOCH_COMPLETED)

    def _remember_epoch_end(self, engine: Engine) -> None:
        self._epoch_end = {**self._state(engine), "random": get_random_state()}

    def _iteration_started(self, engine: Engine) -> None:
        self._put_random_state_back()
        self._random_before = get_random_state()

    def _iteration_completed(self, engine: Engine) -> None:
        iteration, epoch_length = engine.state.iteration, engine.state.epoch_length
        if epoch_length and iteration % epoch_length == 0:
            self._remember_epoch_end(engine)  # saved once the epoch is closed
        elif self.interval and iteration % self.interval == 0:
            self.save(engine)

    def _epoch_completed(self, engine: Engine) -> None:
        self._epoch_end = None
        self.save(engine)


class BestModelSaver:
    """Save the network's weights, ``{"model": state_dict}``, whenever an evaluator's key metric is a new best.

    The file is replaced atomically, by the first process only. With :class:`RunCheckpoint` the best metric survives
    a resume, so a worse model never replaces a better one; a file left by an earlier run is kept beside it as
    ``<name>.previous``.

    Args:
        path: the file.
        model: the network; plain, not its distributed or compiled wrapper.
    """

    def __init__(self, path: str | Path, model: nn.Module) -> None:
        self.path = Path(path)
        self.model = model
        self._first_of_run = False

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _started(self, engine: Engine) -> None:
        self._first_of_run = engine.state.best_metric_epoch == -1

    def __call__(self, engine: Engine) -> None:
        if rank() != 0 or engine.state.best_metric_epoch != engine.state.epoch:
            return
        if self._first_of_run and self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".previous"))
        atomic_save({"model": self.model.state_dict()}, self.path)
