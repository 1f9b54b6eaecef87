"""Handler that saves the whole state of a training run, and continues a run exactly."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .configuration import federated
from .data_order import ResumableDataLoader
from .files import atomic_save
from .learning_rates import stretch, warn_beyond_plan
from .random_state import get_random_state, set_random_state
from .run_folder import checkpoints_of, read_checkpoint, refuse_lost_checkpoints, refuse_used_folder

logger = logging.getLogger(__name__)


class RunCheckpoint:
    """Save everything a training run needs to continue exactly, and restore it.

    A checkpoint ``<run_dir>/checkpoint_iteration=<n>.pt`` is a dictionary of tensors and builtins: the state of every
    object in ``objects`` under its name (``model``, ``optimizer``, ``lr_scheduler``, ...), ``trainer`` (iteration and
    epochs), ``scaler`` of mixed precision, ``evaluator`` (best metric and its epoch), ``random`` (Python, NumPy,
    PyTorch and CUDA states of every process), ``data`` (items of the data list and the batch of all processes) and,
    between two optimiser steps of accumulated gradients, ``gradients``. Files are written atomically, by the first
    process only; the last two stay. Ignite's ``Checkpoint`` knows neither the random states nor an epoch that is
    still to be closed. Order and augmentation of the data need no state with a ``ResumableDataLoader``.

    A trainer that is run again goes on from where it stands. MONAI's federated client does so each round, with weights
    of a server. A client that is started anew resumes when its trainer is built: all but those weights goes on.

    Args:
        run_dir: folder of the run.
        objects: by name, what has ``state_dict`` and ``load_state_dict``; None is left out. The network is unwrapped.
        data_loader: of the training; the data resume exactly if it is a ``ResumableDataLoader``.
        evaluator: of the validation, whose best metric has to survive.
        interval: save every so many iterations as well as at the end of each epoch; 0 for epochs alone.
        resume: continue from the newest sound checkpoint of the folder; from the start if there was none yet.
        extend: allow another ``max_epochs`` than the checkpoint's; the learning-rate schedule follows the new plan.

    Raises:
        FileExistsError: (when the run starts) the folder has checkpoints and ``resume`` is off.
        ValueError: (when the run starts) no checkpoint of the folder is sound, its checkpoints are gone, or it
            belongs to another network, data list, epoch length or, without ``extend``, number of epochs.
        OSError: a checkpoint cannot be written or read; the previous ones are intact.
    """

    def __init__(
        self,
        run_dir: str | Path,
        objects: Mapping[str, Any],
        data_loader: Any,
        evaluator: Engine,
        interval: int = 0,
        resume: bool = False,
        extend: bool = False,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.objects = {name: thing for name, thing in objects.items() if thing is not None}
        self.data_loader, self.evaluator = data_loader, evaluator
        self.interval, self.resume, self.extend = interval, resume, extend
        self._data: dict[str, Any] = {}
        self._random_before: dict[str, Any] = {}  # of the running iteration
        self._random_resumed: dict[str, Any] | None = None  # to put back when the first iteration starts
        self._epoch_end: dict[str, Any] = {}  # state after an epoch's last step, before its validation

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        self._data = _describe(self.data_loader)
        if self.resume and federated():
            self._resume(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration_started)

    def save(self, engine: Engine) -> Path:
        """Save the present state. In a distributed run all processes have to call this together."""
        return self._write(self._state(engine, engine.state.iteration), get_random_state())

    def save_before_step(self, engine: Engine) -> Path:
        """Save the state before the running iteration, from within it and before the optimiser's step."""
        return self._write(self._state(engine, engine.state.iteration - 1), self._random_before)

    def save_before_validation(self) -> Path:
        """Save the state an epoch's last step left, from within its validation, which is repeated on resuming."""
        state = {**self._epoch_end, "trainer": {**self._epoch_end["trainer"], "epoch_closed": False}}
        return self._write(state, state["random"])

    def _write(self, state: dict[str, Any], random_state: dict[str, Any]) -> Path:
        state["random"] = idist.all_gather(random_state)
        path = self.run_dir / f"checkpoint_iteration={state['trainer']['iteration']:08d}.pt"
        if idist.get_rank() == 0:
            atomic_save(state, path)
            earlier = [each for each in checkpoints_of(self.run_dir) if each.name < path.name]
            for old in earlier[:-1]:  # a later one that could not be read is no reason
                old.unlink(missing_ok=True)
        return path

    def _state(self, engine: Engine, iteration: int) -> dict[str, Any]:
        """State after ``iteration`` completed iterations; tensors are shared with the run, not copied."""
        state: dict[str, Any] = {name: _stateful(thing).state_dict() for name, thing in self.objects.items()}
        state["trainer"] = {
            "iteration": iteration,
            "epoch_length": engine.state.epoch_length,
            "max_epochs": engine.state.max_epochs,
            "epoch_closed": True,
            **_best(engine),
        }
        state["evaluator"] = _best(self.evaluator)
        if engine.scaler is not None:
            state["scaler"] = engine.scaler.state_dict()
        state["data"] = self._data
        # in the middle of an accumulation the gradients so far belong to the state
        if iteration % engine.state.epoch_length % engine.accumulation_steps:
            state["gradients"] = [parameter.grad for parameter in _parameters(engine.optimizer)]
        return state

    def _start(self, engine: Engine) -> None:
        epoch_closed = True
        if engine.state.iteration:  # run again
            self._start_data_at(engine.state.iteration)
        else:
            refuse_used_folder(self.run_dir, self.resume)
            epoch_closed = self._resume(engine) if self.resume else True
        warn_beyond_plan(self.objects.get("lr_scheduler"), engine)
        if not engine.has_event_handler(self._epoch_completed, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        if not epoch_closed:  # ignite still calls a handler added while its event fires, after all others
            engine.add_event_handler(Events.STARTED, self._close_epoch)

    def _newest_sound(self) -> tuple[Path | None, dict[str, Any] | None]:
        """The newest checkpoint that can be read, and its content; damaged ones are named in the log and stay."""
        reasons = []
        for path in reversed(checkpoints_of(self.run_dir)):
            try:
                return path, read_checkpoint(path)
            except ValueError as error:
                reasons.append(str(error))
                logger.error(f"{error}. Looking for the checkpoint before it")
        if reasons:
            raise ValueError(f"no sound checkpoint in {self.run_dir}: {'; '.join(reasons)}")
        return None, None

    def _resume(self, engine: Engine) -> bool:
        """Load the newest sound checkpoint; False if the epoch it ends has still to be closed."""
        path, state = self._newest_sound() if idist.get_rank() == 0 else (None, None)
        path = idist.all_gather((path,))[0][0]
        if path is None:
            refuse_lost_checkpoints(self.run_dir, min(n for n in (self.interval, engine.state.epoch_length) if n))
            logger.info(f"nothing to resume in {self.run_dir}: starting from the beginning")
            return True
        state = read_checkpoint(path) if state is None else state
        try:
            self._restore(state, engine, path)
            for each in state["random"]:
                set_random_state(each)
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is not the whole state of a training run ({reason})") from error
        if len(state["random"]) == idist.get_world_size():
            self._random_resumed = state["random"][idist.get_rank()]
        else:
            logger.warning(
                f"{path} was made by {len(state['random'])} processes, this run has {idist.get_world_size()}: "
                "the random states of the network start anew"
            )
        logger.info(f"resumed from {path} after iteration {state['trainer']['iteration']}")
        return bool(state["trainer"]["epoch_closed"])

    def _restore(self, state: Mapping[str, Any], engine: Engine, source: Path) -> None:
        plan = state["trainer"]
        self._check_data(plan, state.get("data", {}), engine, source)
        if not federated():  # there each round adds its epochs to those done
            self._check_plan(plan, engine, source)
        for name, thing in self.objects.items():
            if name not in state:
                raise ValueError(f"{source} has no '{name}'; it holds {', '.join(map(str, state))}")
            thing, value = _stateful(thing), state[name]
            try:
                if isinstance(thing, LRScheduler) and plan["max_epochs"] != engine.state.max_epochs:
                    stretch(thing, value)
                else:
                    thing.load_state_dict(value)
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{source} does not fit '{name}' of this configuration: {error}") from error
        progress = {key: plan[key] for key in ("iteration", "epoch_length")}
        engine.load_state_dict({**progress, "max_epochs": engine.state.max_epochs})
        _set_best(engine, plan)
        _set_best(self.evaluator, state["evaluator"])
        if engine.scaler is not None and "scaler" in state:
            engine.scaler.load_state_dict(state["scaler"])
        gradients = () if federated() else state.get("gradients", ())  # there, of other weights
        for parameter, gradient in zip(_parameters(engine.optimizer) if gradients else (), gradients):
            parameter.grad = None if gradient is None else gradient.to(parameter)
        self._start_data_at(plan["iteration"])

    def _start_data_at(self, iteration: int) -> None:
        if isinstance(self.data_loader, ResumableDataLoader):
            self.data_loader.order.start_iteration = iteration
        else:
            logger.warning("the data loader is not resumable: order and augmentation of the data start anew")

    def _check_data(self, plan: Mapping[str, Any], data: Mapping[str, Any], engine: Engine, source: Path) -> None:
        ours, epoch_length = self._data, engine.state.epoch_length
        if plan["epoch_length"] != epoch_length:
            raise ValueError(
                f"{source} was made with {plan['epoch_length']} iterations an epoch (data list of {data.get('items')} "
                f"items), this configuration has {epoch_length} ({ours.get('items')} items)"
            )
        if data.get("batch", ours.get("batch")) != ours.get("batch"):
            raise ValueError(
                f"{source} was made with batches of {data['batch']} items over all processes, this configuration has "
                f"{ours['batch']}: set batch_size so that batch_size times processes is the same"
            )
        if data.get("names", ours.get("names")) != ours.get("names"):
            before, now = set(data["names"]), set(ours["names"])
            changes = {"gone": sorted(before - now), "new": sorted(now - before)}
            found = [f"{len(names)} {word} (such as {names[0]})" for word, names in changes.items() if names]
            raise ValueError(
                f"{source} was made with other data: {len(data['names'])} items there, {ours['items']} here, "
                f"{', '.join(found) or 'in another order'}. Resume with the same data, or start a new run from "
                "the weights"
            )

    def _check_plan(self, plan: Mapping[str, Any], engine: Engine, source: Path) -> None:
        state = engine.state
        if plan["max_epochs"] != state.max_epochs and not self.extend:
            raise ValueError(
                f"{source} was made under a plan of {plan['max_epochs']} epochs, this configuration has "
                f"{state.max_epochs}: set max_epochs to {plan['max_epochs']}, or pass '--extend True' to change the "
                "length of the run and of its learning-rate schedule"
            )
        if plan["iteration"] > state.max_epochs * state.epoch_length:
            raise ValueError(
                f"{source} is at iteration {plan['iteration']}, beyond the {state.max_epochs} epochs of "
                f"{state.epoch_length} iterations of this configuration"
            )

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
        self._epoch_end = {**self._state(engine, engine.state.iteration), "random": get_random_state()}

    def _iteration_started(self, engine: Engine) -> None:
        self._put_random_state_back()
        self._random_before = get_random_state()

    def _iteration_completed(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        if iteration % engine.state.epoch_length == 0:
            self._remember_epoch_end(engine)  # saved once the epoch is closed
        elif self.interval and iteration % self.interval == 0:
            self.save(engine)

    def _epoch_completed(self, engine: Engine) -> None:
        self._epoch_end = {}
        self.save(engine)


def _describe(data_loader: Any) -> dict[str, Any]:
    """The data list and the batch over all processes, as far as they can be told."""
    if not isinstance(data_loader, ResumableDataLoader):
        return {"items": len(data_loader.dataset)}
    order, names = data_loader.order, data_loader.dataset.identities()
    return {"items": order.num_items, "batch": order.batch_size * order.world_size, "names": names}


def _stateful(thing: Any) -> Any:
    """MONAI's early stopping hides ignite's, which has the state."""
    return thing._handler if isinstance(thing, EarlyStopHandler) else thing


def _parameters(optimizer: Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _best(engine: Engine) -> dict[str, float | int]:
    state = engine.state
    return {"best_metric": float(state.best_metric), "best_metric_epoch": int(state.best_metric_epoch)}


def _set_best(engine: Engine, state: Mapping[str, Any]) -> None:
    engine.state.best_metric = state["best_metric"]
    engine.state.best_metric_epoch = state["best_metric_epoch"]
