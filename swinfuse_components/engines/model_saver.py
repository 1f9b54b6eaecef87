"""Handler that saves the weights of the best or the last model of a run."""

from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from .files import atomic_save, keep_aside


class ModelSaver:
    """Save the network's weights, ``{"model": state_dict}``: the best of the validation, or the last.

    The file is replaced atomically, by the first process only. With :class:`RunCheckpoint` the best metric survives
    a resume, so a worse model never replaces a better one (MONAI's ``CheckpointSaver`` forgets it). A file that an
    earlier run left is kept as ``<name>.previous``, ``<name>.previous.2`` and so on: beside the first best model, and
    a last model as soon as the run begins, so that it is there only where a run has ended.

    ``model`` is the plain network, not its distributed or compiled wrapper. ``when="best"`` is for an evaluator,
    whenever its key metric is a new best; ``when="last"`` for a trainer, at its end.
    """

    def __init__(self, path: str | Path, model: nn.Module, when: str = "best") -> None:
        if when not in ("best", "last"):
            raise ValueError(f"when must be 'best' or 'last', got {when!r}")
        self.path, self.model, self.when = Path(path), model, when
        self._first_of_run = False

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator (best) or a trainer (last)."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._started)
            engine.add_event_handler(Events.COMPLETED if self.when == "last" else Events.EPOCH_COMPLETED, self._save)

    def _started(self, engine: Engine) -> None:
        if self.when == "best":
            self._first_of_run = engine.state.best_metric_epoch == -1
        elif engine.state.iteration == 0 and self.path.exists():
            keep_aside(self.path)

    def _save(self, engine: Engine) -> None:
        if self.when == "best" and engine.state.best_metric_epoch != engine.state.epoch:
            return
        if self._first_of_run and self.path.exists():
            keep_aside(self.path)
        atomic_save({"model": self.model.state_dict()}, self.path)
