"""The whole state of a training run as one dictionary of tensors and builtins, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import EarlyStopHandler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .data_order import ResumableDataLoader

RESERVED_NAMES = ("trainer", "evaluator", "scaler", "random", "data", "gradients")
# what a scheduler's state says about progress; the rest of its state is the plan, which the configuration sets
_SCHEDULER_PROGRESS = ("last_epoch", "_step_count")


def collect_state(
    engine: Engine, objects: Mapping[str, Any], evaluator: Engine | None, data_loader: Any, iteration: int
) -> dict[str, Any]:
    """State of a run after ``iteration`` completed iterations; tensors are shared with the run, not copied."""
    state: dict[str, Any] = {name: _stateful(thing).state_dict() for name, thing in objects.items()}
    state["trainer"] = {
        "iteration": iteration,
        "epoch_length": engine.state.epoch_length,
        "max_epochs": engine.state.max_epochs,
        "epoch_closed": True,
        **_best(engine),
    }
    if evaluator is not None:
        state["evaluator"] = _best(evaluator)
    if getattr(engine, "scaler", None) is not None:
        state["scaler"] = engine.scaler.state_dict()
    if data_loader is not None:
        state["data"] = {"items": len(data_loader.dataset)}
    # in the middle of an accumulation the gradients so far belong to the state
    in_epoch = iteration % engine.state.epoch_length if engine.state.epoch_length else iteration
    if in_epoch % getattr(engine, "accumulation_steps", 1):
        state["gradients"] = [parameter.grad for parameter in _parameters(engine.optimizer)]
    return state


def restore_state(
    state: Mapping[str, Any],
    engine: Engine,
    objects: Mapping[str, Any],
    evaluator: Engine | None,
    data_loader: Any,
    extend: bool,
    source: str,
    logger: logging.Logger,
) -> None:
    """Put a state from :func:`collect_state` back into the objects of a run that is about to start.

    Raises:
        ValueError: it belongs to another plan or other objects; the message names ``source``, what was found and what
            was expected.
    """
    plan = state["trainer"]
    _check_plan(plan, state.get("data", {}), engine, data_loader, extend, source)
    for name, thing in objects.items():
        if name not in state:
            raise ValueError(f"{source} has no '{name}'; it holds {', '.join(map(str, state))}")
        thing, value = _stateful(thing), state[name]
        try:
            if isinstance(thing, LRScheduler):
                _restore_scheduler(thing, value, stretched=plan["max_epochs"] != engine.state.max_epochs)
            else:
                thing.load_state_dict(value)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{source} does not fit '{name}' of this configuration: {error}") from error
    engine.load_state_dict(
        {"iteration": plan["iteration"], "epoch_length": plan["epoch_length"], "max_epochs": engine.state.max_epochs}
    )
    _set_best(engine, plan)
    if evaluator is not None and "evaluator" in state:
        _set_best(evaluator, state["evaluator"])
    if getattr(engine, "scaler", None) is not None and "scaler" in state:
        engine.scaler.load_state_dict(state["scaler"])
    if "gradients" in state:
        for parameter, gradient in zip(_parameters(engine.optimizer), state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter)
    if isinstance(data_loader, ResumableDataLoader):
        data_loader.order.start_iteration = plan["iteration"]
    elif data_loader is not None:
        logger.warning("the data loader is not a ResumableDataLoader: order and augmentation of the data start anew")


def _check_plan(
    plan: Mapping[str, Any], data: Mapping[str, Any], engine: Engine, data_loader: Any, extend: bool, source: str
) -> None:
    items = None if data_loader is None else len(data_loader.dataset)
    if plan["epoch_length"] != engine.state.epoch_length:
        raise ValueError(
            f"{source} was made with {plan['epoch_length']} iterations an epoch (data list of {data.get('items')} "
            f"items), this configuration has {engine.state.epoch_length} ({items} items): set the epoch length to that "
            "of the checkpoint to go on with changed data"
        )
    if plan["max_epochs"] != engine.state.max_epochs and not extend:
        raise ValueError(
            f"{source} was made under a plan of {plan['max_epochs']} epochs, this configuration has "
            f"{engine.state.max_epochs}: set max_epochs to {plan['max_epochs']}, or say that the learning-rate "
            "schedule shall follow the new length with '--extend True'"
        )
    if plan["iteration"] > engine.state.max_epochs * (engine.state.epoch_length or 0):
        raise ValueError(
            f"{source} is at iteration {plan['iteration']}, beyond the {engine.state.max_epochs} epochs of "
            f"{engine.state.epoch_length} iterations of this configuration"
        )


def _restore_scheduler(scheduler: LRScheduler, state: Mapping[str, Any], stretched: bool) -> None:
    """Load progress and plan, or progress alone into the plan of this configuration (a longer or shorter schedule)."""
    if not stretched:
        scheduler.load_state_dict(dict(state))
        return
    progress = {key: state[key] for key in _SCHEDULER_PROGRESS if key in state}
    scheduler.load_state_dict({**scheduler.state_dict(), **progress})
    rates = scheduler.get_lr()  # type: ignore[no-untyped-call,unused-ignore]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = [float(rate) for rate in rates]


def _stateful(thing: Any) -> Any:
    """MONAI's early stopping hides ignite's, which has the state."""
    return thing._handler if isinstance(thing, EarlyStopHandler) else thing


def _parameters(optimizer: Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _best(engine: Engine) -> dict[str, float | int]:
    best = getattr(engine.state, "best_metric", -1)
    return {"best_metric": float(best), "best_metric_epoch": int(getattr(engine.state, "best_metric_epoch", -1))}


def _set_best(engine: Engine, state: Mapping[str, Any]) -> None:
    engine.state.best_metric = state["best_metric"]
    engine.state.best_metric_epoch = state["best_metric_epoch"]
