"""What is logged beside the loss terms."""

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys

from swinfuse_components.engines import LossTerms, SaturationWarner


def terms(network, views: torch.Tensor, amp: bool = False) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        output = {CommonKeys.PRED: network(*views.chunk(2)), CommonKeys.LABEL: {"view": views}}
    how = {"network": network, "amp": amp, "amp_kwargs": {"dtype": torch.bfloat16}}
    engine = SimpleNamespace(state=SimpleNamespace(output=output), **how)
    LossTerms(lambda prediction, target: {"loss": torch.zeros(())}, shuffled=True)(engine)
    return output["terms"]


def test_influence_is_the_relative_change_under_another_partner() -> None:
    views = torch.randn(8, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = views.chunk(2)

    def influence(share: float) -> float:
        def network(view_i, view_j):
            return {"contrastive": torch.cat([view_i, view_j]).flatten(1), "stream_i": view_i + share * view_j}

        return float(terms(network, views)["influence"])

    change = [0.3 * (second[(k - 1) % 4] - second[k]) for k in range(4)]
    expected = torch.stack(change).square().sum().sqrt() / (first + 0.3 * second).square().sum().sqrt()
    assert abs(influence(0.3) - float(expected)) < 1e-6
    assert influence(0.0) == 0


def test_rounding_is_no_influence() -> None:
    layer = torch.nn.Conv3d(1, 2, 3, padding=1)

    def network(view_i, view_j):
        return {"contrastive": layer(torch.cat([view_i, view_j])).flatten(1), "stream_i": layer(view_i)}

    assert float(terms(network, torch.rand(4, 1, 8, 8, 8), amp=True)["influence"]) == 0


def test_shuffled_partners_show_a_leak() -> None:
    views = torch.randn(8, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def shuffled_accuracy(network) -> float:
        return float(terms(network, views)["shuffled_accuracy"])

    def separate(view_i, view_j):
        return {"contrastive": torch.cat([view_i, view_j]).flatten(1), "stream_i": view_i}

    def leaking(view_i, view_j):
        return {"contrastive": (view_i + view_j).flatten(1).repeat(2, 1), "stream_i": view_i}

    assert shuffled_accuracy(leaking) == 1
    assert shuffled_accuracy(separate) < 0.5
    views[4:] = views[:4]  # each embedding finds its own image, not the one that it was paired with
    assert shuffled_accuracy(separate) == 0


def test_a_term_that_stays_at_its_bound_is_told_once_and_again_after_it_has_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = [0.69] * 60 + [0.1] * 50 + [0.69] * 60

    def step(engine: Engine, _: int) -> dict[str, Any]:
        terms = {"density": torch.tensor(values[engine.state.iteration - 1]), "rotation": torch.tensor(1.0)}
        return {"image": torch.zeros(2, 1), "terms": terms}

    trainer, shares = Engine(step), []
    bounds = {"density": math.log(2), "contrastive": math.log(3)}
    SaturationWarner(lambda batch_size: bounds).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: shares.append(e.state.output["terms"]))
    with caplog.at_level(logging.WARNING):
        trainer.run(range(len(values)))
    told = [record.message for record in caplog.records if "at its bound" in record.message]
    assert [text.partition(":")[0] for text in told] == ["iteration 50", "iteration 160"]
    assert all("density" in text and "0.6931" in text for text in told)
    assert float(shares[0]["density_of_bound"]) == pytest.approx(0.69 / math.log(2))
    assert "contrastive_of_bound" not in shares[0]  # a term that the loss does not have
