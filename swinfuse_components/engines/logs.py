"""What a run tells while it trains: log lines, a progress bar, and TensorBoard."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.handlers import StatsHandler
from monai.utils import optional_import
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from tqdm import tqdm

from .data_order import explain_worker

SummaryWriter, _ = optional_import("torch.utils.tensorboard", name="SummaryWriter")

TERMS_KEY = "terms"
_WINDOW = 50  # iterations for which a term has to lie at its bound
_MEANING = {
    "density": "the two streams are told apart completely and the term has no gradient left; lower the learning rate, "
    "let both streams share one attention stack, or change the weight of the term",
    "contrastive": "every pair looks alike to the network, which is collapse or chance; lower the learning rate, "
    "enlarge the batch, or check that the views are not empty",
}


def term_values(output: Any) -> dict[str, float]:
    """Named scalars of one iteration's output, for handlers' ``output_transform``: its ``"terms"``, or its ``"loss"``.

    Takes what trainers leave in ``state.output``: a dictionary, or the list that decollating makes of it.
    """
    if isinstance(output, Sequence) and output:
        output = output[0]
    if not isinstance(output, Mapping):
        return {}
    terms = output.get(TERMS_KEY, {name: output[name] for name in (Keys.LOSS,) if name in output})
    return {name: float(value) for name, value in terms.items()}


class StatsLogger(StatsHandler):
    """MONAI's ``StatsHandler``, which logs terms and metrics, without its traceback in the log for every error.

    ``iteration_log`` may also be a number of iterations: the first one is logged, and each after so many more.
    """

    def __init__(self, iteration_log: bool | int | Callable[[Engine, int], bool] = True, **options: Any) -> None:
        if isinstance(every := iteration_log, int) and not isinstance(every, bool):
            iteration_log = lambda _, iteration: (iteration - 1) % every == 0  # noqa: E731
        super().__init__(iteration_log, **options)

    def exception_raised(self, _engine: Engine, e: Exception) -> Any:
        """Pass the error on; the caller reports it."""
        raise (explain_worker(e) if isinstance(e, RuntimeError) else e) from e.__cause__


class TrainingProgress:
    """Progress bar over all iterations of all epochs, with the loss and the estimated time left.

    Ignite's own ``ProgressBar`` starts anew each epoch and so cannot say when a run will end.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer; the first process alone shows a bar."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
            engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self.close)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        if self.bar is None:  # a resumed run starts at its iteration: the estimate rests on this process alone
            total, done = state.max_epochs * state.epoch_length, state.iteration - 1
            self.bar = tqdm(desc="training", unit="step", mininterval=1.0, total=total, initial=done)
        loss = term_values(state.output).get("loss", math.nan)
        self.bar.set_postfix_str(f"epoch {state.epoch}/{state.max_epochs}, loss {loss:.4f}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class SaturationWarner:
    """Warn when the mean of a loss term over the last 50 iterations lies within 1 % of the term's upper bound.

    The density term cannot exceed ln 2 and the contrastive one is ln(2B - 1) when all B pairs look alike (Eq. 3 of
    the paper; the normalised temperature-scaled cross-entropy). Either value for long means saturation or collapse.

    ``bounds`` gives the bounds by name for a batch size, as ``PretrainingLoss.bounds`` does. Each term's value relative
    to its bound joins the logged terms as ``<term>_of_bound``; attach this handler before those that log. The warning
    is given once for each term and again only after the term has left its bound in between.
    """

    def __init__(self, bounds: Callable[[int], Mapping[str, float]]) -> None:
        self.bounds = bounds
        self.saturated: set[str] = set()  # names of the terms at their bounds now
        self._history: dict[str, deque[float]] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        terms = engine.state.output[TERMS_KEY]
        for name, bound in self.bounds(engine.state.output["image"].shape[0]).items():
            # one pair alone has no negatives: its contrastive loss is 0 = ln 1 whatever the network does
            if name not in terms or bound <= 0:
                continue
            terms[f"{name}_of_bound"] = torch.as_tensor(float(terms[name]) / bound)
            history = self._history.setdefault(name, deque(maxlen=_WINDOW))
            history.append(float(terms[name]))
            mean = sum(history) / len(history)
            if len(history) < _WINDOW or mean < 0.99 * bound:
                self.saturated.discard(name)
            elif name not in self.saturated:
                self.saturated.add(name)
                engine.logger.warning(
                    f"iteration {engine.state.iteration}: the {name} loss was {mean:.4f} on average over the last "
                    f"{_WINDOW} iterations, at its bound of {bound:.4f}: {_MEANING[name]}"
                )


def summary_writer(log_dir: str | Path) -> Any:
    """A ``SummaryWriter`` to give to all of MONAI's TensorBoard handlers; it writes in the first process alone."""
    return SummaryWriter(log_dir=str(log_dir)) if idist.get_rank() == 0 else _SilentWriter()


class _SilentWriter:
    """Takes every call of a ``SummaryWriter`` and writes nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def middle_slices(*volumes: Tensor) -> tuple[Tensor, ...]:
    """The middle plane along the last axis of volumes (B, C, D, H, W): images (B, C, D, H), for TensorBoard."""
    return tuple(volume[..., volume.shape[-1] // 2].float() for volume in volumes)
