"""What validation logs beside the loss terms."""

from types import SimpleNamespace

import torch
from monai.utils.enums import CommonKeys

from swinfuse_components.engines import LossTerms


def test_shuffled_partners_show_a_leak() -> None:
    views = torch.randn(8, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def shuffled_accuracy(network) -> float:
        output = {CommonKeys.PRED: {}, CommonKeys.LABEL: {"view": views}}
        engine = SimpleNamespace(state=SimpleNamespace(output=output), network=network)
        LossTerms(lambda prediction, target: {"loss": torch.zeros(())}, shuffled=True)(engine)
        return float(output["terms"]["shuffled_accuracy"])

    def separate(view_i, view_j):
        return {"contrastive": torch.cat([view_i, view_j]).flatten(1)}

    def leaking(view_i, view_j):
        return {"contrastive": (view_i + view_j).flatten(1).repeat(2, 1)}

    assert shuffled_accuracy(leaking) == 1
    assert shuffled_accuracy(separate) < 0.5
    views[4:] = views[:4]  # each embedding finds its own image, not the one that it was paired with
    assert shuffled_accuracy(separate) == 0
