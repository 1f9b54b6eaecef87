"""The plan of the learning rate: resumed, stretched, and overrun."""

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from torch.optim.lr_scheduler import LRScheduler

# what a scheduler's state says about progress; the rest of its state is the plan, which the configuration sets
_SCHEDULER_PROGRESS = ("last_epoch", "_step_count")


def restore_scheduler(scheduler: LRScheduler, state: Mapping[str, Any], stretched: bool) -> None:
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


def warn_beyond_plan(scheduler: Any, engine: Engine) -> None:
    """Say so if a trainer is about to run further than its rate is planned for: it rises again there."""
    planned = getattr(scheduler, "t_total", None)
    if planned and engine.state.max_epochs * (engine.state.epoch_length or 0) > planned:
        logging.getLogger(__name__).warning(
            f"the learning rate is planned for {planned} iterations, and this run goes beyond: set 'rounds' to the "
            "number of times that the trainer is run"
        )
