"""Which voxels attend to which: the windows of a volume, sorted so that those alike are computed together."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import window_partition
from torch import Tensor

from .window_mask import window_mask


class WindowKind(NamedTuple):
    """Windows of which the same part lies inside the volume, and in which the same pairs may attend to each other.

    Attributes:
        windows: how many.
        inside: the q positions in the window that hold voxels.
        padding: the other positions. Their keys are all the same, since a Swin block pads with zeros behind its
            normalisation; so one key stands for all of them, the last.
        mask: (q, keys), 0 and -100, or None where every voxel sees every key.
        padding_mask: (q, padding), likewise, of the keys that were made one.
    """

    windows: int
    inside: Tensor
    padding: Tensor
    mask: Tensor | None
    padding_mask: Tensor | None

    def key_bias(self, bias: Tensor) -> Tensor:
        """Of the bias between all positions (heads, n, n) the rows of voxels, (heads, q, keys).

        The key that stands for m keys weighs as much as they do together: its bias is the logarithm of the sum of the
        exponentials of theirs.
        """
        if not len(self.padding):
            return bias
        rows = bias.index_select(1, self.inside)
        padding = rows.index_select(2, self.padding)
        if self.padding_mask is not None:
            padding = padding + self.padding_mask.to(bias.dtype)
        return torch.cat([rows.index_select(2, self.inside), padding.logsumexp(-1, keepdim=True)], -1)


class WindowPlan(NamedTuple):
    """The kinds of windows of a batch of volumes.

    Attributes:
        kinds: at most eight: the last window of each axis may differ from the others.
        order: for each row, kind by kind, window by window, the voxel that stands there.
        back: the inverse of ``order``.
    """

    kinds: tuple[WindowKind, ...]
    order: Tensor
    back: Tensor


@lru_cache(maxsize=64)
def window_plan(
    batch: int, size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device
) -> WindowPlan:
    """The plan for volumes of ``size`` voxels, counted through the batch; from a cache after the first call."""
    with torch.inference_mode(False), torch.no_grad():
        voxels = torch.arange(batch * size[0] * size[1] * size[2], device=device).view(batch, *size, 1)
        ends = [-s % w for s, w in zip(size, window, strict=True)]
        voxels = F.pad(voxels, (0, 0, 0, ends[2], 0, ends[1], 0, ends[0]), value=-1)
        padded = tuple(voxels.shape[1:4])
        masks = window_mask(padded, window, shift, device) if any(shift) else None
        voxels = window_partition(voxels.roll([-s for s in shift], (1, 2, 3)), window).squeeze(-1)
        of_mask = torch.tensor(masks.kinds if masks else (0,), device=device).repeat(len(voxels))[: len(voxels)]
        alike = torch.cat([of_mask[:, None], (voxels >= 0).long()], 1).unique(dim=0, return_inverse=True)[1]
        kinds, order = [], []
        for kind in range(int(alike.max()) + 1):
            members = (alike == kind).nonzero()[:, 0]
            valid = voxels[members[0]] >= 0
            inside, padding = valid.nonzero()[:, 0], (~valid).nonzero()[:, 0]
            mask = masks.patterns[int(of_mask[members[0]])] if masks else None
            kinds.append(WindowKind(len(members), inside, padding, *_masks_of(mask, inside, padding)))
            order.append(voxels[members][:, inside].flatten())
        rows = torch.cat(order)
        return WindowPlan(tuple(kinds), rows, rows.argsort())


def _masks_of(mask: Tensor | None, inside: Tensor, padding: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The mask between the voxels, with the one key for the padding, and the mask of the padding's own keys."""
    if mask is None or not bool((mask[inside] < 0).any()):
        return None, None
    own, others = mask[inside][:, inside], mask[inside][:, padding]
    if not len(padding):
        return own, None
    # Who sees nothing of the padding does not see its one key; who sees some of it sees as much in the key's bias.
    unseen = (others < 0).all(1, keepdim=True)
    return torch.cat([own, unseen * -100.0], 1), others.masked_fill(unseen, 0.0)
