"""Patch merging: as older Swin UNETR checkpoints were trained with, and a leaner backward pass of MONAI's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import PatchMerging, PatchMergingV2
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The octants (offsets in D, H, W) in the order in which MONAI before 1.5 joined them: (0, 1, 0) and (0, 0, 1) stand
# there twice, (1, 1, 0) and (0, 1, 1) are missing.
LEGACY_OCTANTS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))

# The octants of MONAI's two layers, in the order in which each joins them.
_OCTANTS: dict[type, tuple[tuple[int, int, int], ...]] = {
    PatchMergingV2: tuple((i, j, k) for i in range(2) for j in range(2) for k in range(2)),
    PatchMerging: ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
}


class LegacyPatchMerging(PatchMergingV2):
    """MONAI's ``PatchMerging`` before version 1.5, which read two octants twice and never two others.

    Parameter names and shapes are those of today's merging, so a checkpoint trained with this one loads into both
    without a word, and computes something else with the new one. Use it with ``downsample="legacy"`` for such weights.
    Input (B, D, H, W, C), output (B, D/2, H/2, W/2, 2C); odd sizes are padded with zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"legacy patch merging: found shape {tuple(x.shape)}, expected (B, D, H, W, C)")
        d, h, w = x.shape[1:4]
        if d % 2 or h % 2 or w % 2:
            x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2, 0, d % 2))
        x = torch.cat([x[:, i::2, j::2, k::2, :] for i, j, k in LEGACY_OCTANTS], -1)
        return self.reduction(self.norm(x))


class _Octants(torch.autograd.Function):
    """The octants of a volume (B, D, H, W, C) side by side, (B, D/2, H/2, W/2, C times their number).

    Eight slices, and in the backward pass one volume: PyTorch would make a volume of each slice and add them up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, octants: tuple[tuple[int, int, int], ...]) -> Tensor:
        ctx.octants, ctx.shape = octants, x.shape
        return torch.cat([x[:, i::2, j::2, k::2] for i, j, k in octants], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        volume = grad.new_empty(ctx.shape)
        for (i, j, k), part in zip(ctx.octants, grad.chunk(8, -1), strict=True):
            volume[:, i::2, j::2, k::2] = part
        return volume, None


def merge(merging: PatchMergingV2, x: Tensor) -> Tensor:
    """What a merging layer of MONAI makes of (B, D, H, W, C), with a leaner backward pass where it is one we know."""
    octants = _OCTANTS.get(type(merging))
    if octants is None or any(size % 2 for size in x.shape[1:4]) or torch.is_autocast_enabled(x.device.type):
        return merging(x)
    return merging.reduction(merging.norm(_Octants.apply(x, octants)))


def resolve_downsample(downsample: str | type[nn.Module]) -> str | type[nn.Module]:
    """``"legacy"`` becomes :class:`LegacyPatchMerging`; every other value goes to MONAI as it is."""
    return LegacyPatchMerging if downsample == "legacy" else downsample
