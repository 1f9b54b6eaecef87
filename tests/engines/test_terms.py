"""What validation logs beside the loss terms."""

from types import SimpleNamespace

import torch
from monai.utils.enums import CommonKeys

from swinfuse_components.engines import LossTerms


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
