"""A warning when a loss term sits at its bound: the term no longer teaches anything."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping

import torch
from ignite.engine import Engine, Events

from .pretraining import TERMS_KEY

_MEANING = {
    "density": "the two streams are told apart completely and the term has no gradient left; lower the learning rate, "
    "let both streams share one attention stack, or change the weight of the term",
    "contrastive": "every pair looks alike to the network, which is collapse or chance; lower the learning rate, "
    "enlarge the batch, or check that the views are not empty",
}


class SaturationWarner:
    """Warn when the mean of a loss term over the last iterations lies at the term's upper bound.

    The density term cannot exceed ln 2 and the contrastive one is ln(2B - 1) when all B pairs look alike (Eq. 3 of
    the paper; the normalised temperature-scaled cross-entropy). Either value for long means saturation or collapse.

    Args:
        bounds: gives the bounds by name for a batch size, as ``PretrainingLoss.bounds`` does.
        window: number of iterations the mean is taken over; no warning comes before that many.
        tolerance: relative distance to the bound that still counts as sitting on it.
        name: of the logger; that of the engine if None.

    Each term's value relative to its bound joins the logged terms as ``<term>_of_bound``; attach this handler before
    those that log. The warning is given once for each term and again only after the term has left its bound in between.
    ``saturated`` holds the names of the terms at their bounds now.
    """

    def __init__(
        self,
        bounds: Callable[[int], Mapping[str, float]],
        window: int = 50,
        tolerance: float = 0.01,
        name: str | None = None,
    ) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 iteration, got {window}")
        self.bounds = bounds
        self.window = window
        self.tolerance = tolerance
        self.logger = logging.getLogger(name)
        self._name = name
        self._history: dict[str, deque[float]] = {}
        self.saturated: set[str] = set()

    def attach(self, engine: Engine) -> None:
        if self._name is None:
            self.logger = engine.logger
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output = engine.state.output
        terms = output[TERMS_KEY]
        batch_size = output["image"].shape[0]
        for name, bound in self.bounds(batch_size).items():
            # one pair alone has no negatives: its contrastive loss is 0 = ln 1 whatever the network does
            if name not in terms or bound <= 0:
                continue
            terms[f"{name}_of_bound"] = torch.as_tensor(float(terms[name]) / bound)
            history = self._history.setdefault(name, deque(maxlen=self.window))
            history.append(float(terms[name]))
            mean = sum(history) / len(history)
            if len(history) < self.window or mean < (1 - self.tolerance) * bound:
                self.saturated.discard(name)
            elif name not in self.saturated:
                self.saturated.add(name)
                self.logger.warning(
                    f"iteration {engine.state.iteration}: the {name} loss was {mean:.4f} on average over the last "
                    f"{self.window} iterations, at its bound of {bound:.4f}: {_MEANING.get(name, 'it is saturated')}"
                )
