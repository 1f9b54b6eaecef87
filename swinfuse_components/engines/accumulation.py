"""Gradient accumulation: only where the MONAI that runs has it, and without needless traffic between processes."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import monai
from monai.engines import SupervisedTrainer
from torch.nn.parallel import DistributedDataParallel

HAS_ACCUMULATION = "accumulation_steps" in inspect.signature(SupervisedTrainer).parameters


def accumulation_options(accumulation_steps: int) -> dict[str, Any]:
    """What ``SupervisedTrainer`` is given to accumulate gradients: nothing for 1, which MONAI 1.5 does as well.

    Raises:
        ValueError: accumulation asked of a MONAI that has none.
    """
    if accumulation_steps == 1:
        return {}
    if not HAS_ACCUMULATION:
        raise ValueError(
            f"accumulation_steps is {accumulation_steps}, and MONAI {monai.__version__} cannot accumulate gradients: "
            "expected 1, or MONAI 1.6 or later"
        )
    return {"accumulation_steps": accumulation_steps, "iteration_update": accumulate}


def supervised_trainer(*, accumulation_steps: int = 1, **options: Any) -> SupervisedTrainer:
    """Make MONAI's ``SupervisedTrainer``, which is told of accumulation only when there is anything to accumulate.

    Args:
        accumulation_steps: batches whose gradients make one step.
        options: all other arguments of ``SupervisedTrainer``.

    Raises:
        ValueError: accumulation asked of a MONAI that has none.
    """
    return SupervisedTrainer(**options, **accumulation_options(accumulation_steps))


def accumulate(engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
    """``iteration_update`` that has the processes exchange gradients once a step, not once a batch.

    The iteration is MONAI's. It runs the backward pass of every batch under ``DistributedDataParallel``, which
    averages the gradients over the processes each time; all but the last time before a step that is in vain. The very
    first backward pass of a static graph does it all the same, since in it the graph is recorded.
    """
    network = engine.network
    wait = isinstance(network, DistributedDataParallel) and not _steps_after(engine)
    if wait and network.static_graph and not network._static_graph_delay_allreduce_enqueued:
        wait = False
    with network.no_sync() if wait else contextlib.nullcontext():
        return engine._iteration(engine, batch)


def _steps_after(engine: SupervisedTrainer) -> bool:
    """Whether MONAI changes the weights after this batch: the last of a group, or of the epoch."""
    length, done = engine.state.epoch_length, engine.state.iteration
    if length is not None:
        done = (done - 1) % length + 1
    return done % engine.accumulation_steps == 0 or done == length
