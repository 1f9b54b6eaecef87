"""Dense contrastive loss: the same place in two views is told from other places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contrastive import NTXentLoss


class DenseContrastiveLoss(nn.Module):
    """:class:`NTXentLoss` between places instead of sub-volumes, averaged over feature maps.

    Both views must show the same geometry: a voxel of a map of the first view and the same voxel of the second one are
    the positive pair, all other sampled voxels of the batch, in both views, are the negatives.

    Args:
        temperature: of the loss.
        places: places to draw from each map, from the whole batch and without repetition; all where there are fewer.
            The cost grows as their square; with ``gather_distributed`` each rank draws its part of them.
        gather_distributed: negatives from all ranks, see :class:`NTXentLoss`.

    Shape:
        ``maps``: one tensor (2B, d, D, H, W) for each map, all first views before all second ones; they may differ in
        size. ``shown``: (B, 1, D', H', W') of any size, true where both views show something; voxels of which less than
        a quarter is shown are not drawn. The result is a scalar.

    ValueError if ``temperature`` is not positive or ``places`` not a whole number of 2 or more.
    """

    def __init__(self, temperature: float = 0.1, places: int = 512, gather_distributed: bool = False) -> None:
        super().__init__()
        if places < 2 or places % 1:
            raise ValueError(f"places is {places}: expected a whole number of 2 or more")
        self.places = int(places)
        self.contrast = NTXentLoss(temperature, gather_distributed)

    def forward(self, maps: Sequence[Tensor], shown: Tensor | None = None) -> Tensor:
        losses, places = [], math.ceil(self.places / self.contrast.ranks)
        for x in maps:
            first, second = (view.movedim(1, -1).flatten(0, -2) for view in x.as_subclass(Tensor).chunk(2))
            chosen = torch.arange(len(first), device=x.device)
            if shown is not None:
                depth, height, width = x.shape[2:]
                share = F.adaptive_avg_pool3d(shown.as_subclass(Tensor).float(), (depth, height, width)).flatten()
                # an empty volume has no such place: then all of them
                chosen = chosen[share >= 0.25] if (share >= 0.25).any() else chosen
            chosen = chosen[torch.randperm(len(chosen))[:places].to(x.device)]
            losses.append(self.contrast(first[chosen], second[chosen]))
        return torch.stack(losses).mean()
