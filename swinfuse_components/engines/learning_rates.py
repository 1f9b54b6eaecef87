"""The plan of the learning rate: stretched, and overrun."""

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)


def stretch(scheduler: LRScheduler, state: Mapping[str, Any]) -> None:
    """Bring a scheduler, whose plan is longer or shorter than that of a saved ``state``, to the place of the state."""
    progress = {key: state[key] for key in ("last_epoch", "_step_count") if key in state}
    scheduler.load_state_dict({**scheduler.state_dict(), **progress})
    rates = scheduler.get_lr()  # type: ignore[no-untyped-call,unused-ignore]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = [float(rate) for rate in rates]


def warn_beyond_plan(scheduler: Any, engine: Engine) -> None:
    """Say so if a trainer is about to run further than its learning rate is planned for: it rises again there."""
    planned = getattr(scheduler, "t_total", None)
    if planned and engine.state.max_epochs * engine.state.epoch_length > planned:
        logger.warning(
            f"the learning rate is planned for {planned} iterations, and this run goes beyond: set 'rounds' to the "
            "number of times that the trainer is run"
        )
