"""One progress bar for a whole training run, with the time left."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from .distributed import rank
from .pretraining import term_values


class TrainingProgress:
    """Progress bar over all iterations of all epochs, with the loss and the estimated time left.

    Ignite's own ``ProgressBar`` starts anew each epoch and so cannot say when a run will end. A resumed run starts at
    its iteration, so that the estimate rests on the speed of this process alone.

    Args:
        tqdm_kwargs: further arguments of ``tqdm.tqdm`` (``disable``, ``mininterval``, ``file``, ...).
    """

    def __init__(self, **tqdm_kwargs: Any) -> None:
        self.tqdm_kwargs = tqdm_kwargs
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer; the first process alone shows a bar."""
        if rank() != 0:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        for event in (Events.COMPLETED, Events.TERMINATE):
            engine.add_event_handler(event, self.close)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        if self.bar is None:
            total = state.max_epochs * state.epoch_length if state.epoch_length else None
            arguments = {"desc": "training", "unit": "step", "mininterval": 1.0, **self.tqdm_kwargs}
            self.bar = tqdm(total=total, initial=state.iteration - 1, **arguments)
        loss = term_values(state.output).get("loss")
        self.bar.set_postfix_str(
            f"epoch {state.epoch}/{state.max_epochs}" + (f", loss {loss:.4f}" if loss is not None else ""),
            refresh=False,
        )
        self.bar.update()

    def close(self, engine: Engine) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
