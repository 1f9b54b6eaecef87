"""Dense contrastive loss: the same place in two views is told from other places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .contrastive import NTXentLoss
from .density import sample_tokens


class DenseContrastiveLoss(nn.Module):
    """:class:`NTXentLoss` between places instead of sub-volumes, averaged over feature maps.

    Both views must show the same geometry: a voxel of a map of the first view and the same voxel of the second one are
    the positive pair, all other sampled voxels of the batch, in both views, are the negatives.

    Args:
        temperature: of the loss.
        places: places to draw from each map, from the whole batch and without repetition; all where there are fewer.
            The cost grows as their square.
        gather_distributed: negatives from all ranks, see :class:`NTXentLoss`.

    Shape:
        ``maps``: one tensor (2B, d, D, H, W) for each map, all first views before all second ones; they may differ in
        size. The result is a scalar.
    """

    def __init__(self, temperature: float = 0.1, places: int = 512, gather_distributed: bool = False) -> None:
        super().__init__()
        self.places = places
        self.contrast = NTXentLoss(temperature, gather_distributed)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        losses = []
        for x in maps:
            first, second = x.as_subclass(Tensor).chunk(2)
            losses.append(self.contrast(*sample_tokens(first, second, self.places)))
        return torch.stack(losses).mean()
