"""Pre-training with MONAI's engines: two views as input, several named loss terms, gradient accumulation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Average
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import MLFlowHandler
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..losses import partner_accuracy
from .logs import TERMS_KEY, term_values


class PreparePretrainingBatch(PrepareBatch):
    """Turn a batch of two-view items into what the pre-training network and its loss take.

    Reads ``view_i``, ``view_j``, ``target_i``, ``target_j`` (B, C, D, H, W), ``rotation_i``, ``rotation_j`` (B,) and
    ``cutout_i``, ``cutout_j`` (B, 1, D, H, W), and ``shown`` (B, 1, D, H, W) where it is there.

    Returns ``(view_i, targets, (view_j,), {})``, which MONAI's engines call as ``network(view_i, view_j)``. In the
    ``targets`` all first views come before all second ones, as in the network's outputs: ``reconstruction`` and
    ``view`` (2B, C, D, H, W), ``rotation`` (2B,) and ``cutout`` (2B, 1, D, H, W).
    """

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor], dict[str, Any]]:
        def move(key: str) -> Tensor:
            tensor = torch.as_tensor(batchdata[key])
            # MetaTensor bookkeeping would follow every operation of the network for nothing
            return tensor.as_subclass(Tensor).to(device=device, non_blocking=non_blocking, **kwargs)

        def stack(name: str) -> Tensor:
            return torch.cat([move(f"{name}_i"), move(f"{name}_j")])

        targets = {"reconstruction": stack("target"), "rotation": stack("rotation"), "cutout": stack("cutout")}
        if "shown" in batchdata:
            targets["shown"] = move("shown")
        targets["view"] = stack("view")  # for the log: how often a histogram finds the other view
        return move("view_i"), targets, (move("view_j"),), {}


class PretrainingTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` for a loss that returns a dictionary of named terms.

    The loss is called as ``loss_function(prediction, targets)`` and returns a dictionary with the scalar ``"loss"``,
    which is minimised, and any number of named scalars. All of them are left in ``engine.state.output["terms"]``,
    detached, for handlers to log. ``decollate`` is off: outputs hold 2B views while the batch holds B items, so they
    cannot be split into items.
    """

    def __init__(self, *args: Any, loss_function: Callable[..., Mapping[str, Tensor]], **kwargs: Any) -> None:
        self.term_function = loss_function
        for handler in kwargs.get("train_handlers") or ():
            if isinstance(handler, MLFlowHandler):  # `--tracking mlflow` adds one that expects decollated output
                handler.output_transform = _tracked_terms
        options = {"iteration_update": accumulate, "decollate": False, **kwargs}
        super().__init__(*args, loss_function=self._total_loss, **options)

    def _total_loss(self, prediction: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        terms = self.term_function(prediction, targets)
        self.state.output[TERMS_KEY] = {name: value.detach() for name, value in terms.items()}
        return terms["loss"]


def _tracked_terms(output: Mapping[str, Any]) -> dict[str, float]:
    return {f"train_{name}": value for name, value in term_values(output).items()}


def accumulate(engine: SupervisedTrainer, batch: Any) -> dict[str, Any]:
    """``iteration_update`` that has the processes exchange gradients once a step, not once a batch.

    The iteration is MONAI's. It runs the backward pass of every batch under ``DistributedDataParallel``, which
    averages the gradients over the processes each time; all but the last time before a step that is in vain. The very
    first backward pass of a static graph does it all the same, since in it the graph is recorded.
    """
    network, length = engine.network, engine.state.epoch_length
    done = (engine.state.iteration - 1) % length + 1
    wait = isinstance(network, DistributedDataParallel) and done % engine.accumulation_steps != 0 and done != length
    if wait and (not network.static_graph or network._static_graph_delay_allreduce_enqueued):
        with network.no_sync():
            return engine._iteration(engine, batch)
    return engine._iteration(engine, batch)


class LossTerms:
    """Handler that computes the named loss terms of every batch an evaluator sees, into ``state.output["terms"]``.

    MONAI's evaluators know no loss. With this handler and :func:`loss_term_metrics` the mean of every term over the
    held-out patients becomes an ordinary metric.

    With ``shuffled`` each view is also paired with the second view of another sub-volume in the domain invariance
    module. ``"shuffled_accuracy"`` is how often the contrastive embedding then finds that one: above chance, the module
    carries one view into the other, and the contrastive loss can be lowered without looking at the images.
    ``"influence"`` is how much what goes to the encoder depends on the partner: the norm of the change of the first
    stream under that other partner, relative to the stream's own; 0 for a module that does nothing, in ``self`` mode,
    and for a batch of one.
    """

    def __init__(self, loss_function: Callable[..., Mapping[str, Tensor]], shuffled: bool = False) -> None:
        self.loss_function = loss_function
        self.shuffled = shuffled

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output = engine.state.output
        with torch.no_grad():  # type: ignore[no-untyped-call,unused-ignore]
            terms = dict(self.loss_function(output[Keys.PRED], output[Keys.LABEL]))
            if self.shuffled:
                view_i, view_j = output[Keys.LABEL]["view"].chunk(2)
                # in the precision of the evaluation: the rounding of another would look like influence
                with torch.autocast(view_i.device.type, enabled=engine.amp, **engine.amp_kwargs):
                    other = engine.network(view_i, view_j.roll(1, 0))
                own = output[Keys.PRED]["stream_i"]
                terms["shuffled_accuracy"] = partner_accuracy(*other["contrastive"].chunk(2))
                terms["influence"] = (other["stream_i"] - own).float().norm() / own.float().norm()
            output[TERMS_KEY] = terms


def loss_term_metrics(names: Sequence[str | None]) -> dict[str, Average]:
    """Mean of each loss term over all batches and processes, as ``{"val_<name>": metric}`` for an evaluator.

    None stands for a term that this training does not have.
    """

    def pick(name: str) -> Callable[[Mapping[str, Any]], float]:
        return lambda output: float(output[TERMS_KEY][name])

    return {f"val_{name}": Average(output_transform=pick(name)) for name in names if name is not None}


def lower_is_better(current: float, best: float) -> bool:
    """``metric_cmp_fn`` for a metric that is an error: is ``current`` an improvement over ``best``?"""
    return current < best
