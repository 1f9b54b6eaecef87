"""The network as training left it."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from ..engines.files import atomic_save

__all__ = ["LastModelSaver"]


class LastModelSaver:
    """Handler that writes the weights, ``{"model": state_dict}``, when a training ends: no selection on held-out data.

    Args:
        path: the file, replaced atomically by the first process.
        model: the network; plain, not its distributed wrapper.
    """

    def __init__(self, path: str | Path, model: nn.Module) -> None:
        self.path = Path(path)
        self.model = model

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0:
            atomic_save({"model": self.model.state_dict()}, self.path)
