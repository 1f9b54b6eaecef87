"""MONAI's Swin stage with masks from a cache and the leaner attention: same numbers, same parameter names."""

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.nets.swin_unetr import (
    BasicLayer,
    PatchMerging,
    PatchMergingV2,
    SwinTransformerBlock,
    WindowAttention,
    get_window_size,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import EfficientWindowAttention
from .windows import WindowMask, WindowPlan, window_mask, window_plan

# The octants of MONAI's two layers, in the order in which each joins them.
_OCTANTS: dict[type, tuple[tuple[int, int, int], ...]] = {
    PatchMergingV2: tuple((i, j, k) for i in range(2) for j in range(2) for k in range(2)),
    PatchMerging: ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
}


class SwinStage(BasicLayer):
    """Takes over the blocks and the merging of one MONAI ``BasicLayer`` and computes the same.

    MONAI builds the mask of the shifted windows at every forward of every stage; here it comes from a cache by shape
    and device. The attention inside the blocks becomes :class:`EfficientWindowAttention`.
    """

    def __init__(self, source: BasicLayer, attention: str = "auto") -> None:
        nn.Module.__init__(self)
        self.__dict__.update({key: value for key, value in source.__dict__.items() if not key.startswith("_")})
        self.training = source.training
        self.blocks = source.blocks
        self.downsample = source.downsample
        for block in self.blocks:
            if isinstance(block.attn, WindowAttention):
                block.attn = EfficientWindowAttention(block.attn, attention)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, 2C, D/2, H/2, W/2)."""
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return super().forward(x)
        size = tuple(x.shape[2:])
        window, shift = get_window_size(size, self.window_size, self.shift_size)
        # In memory as the blocks read it: a view of the channels-first tensor would make each of them copy it.
        x = x.permute(0, 2, 3, 4, 1).contiguous()
        for number, block in enumerate(self.blocks):
            shifted = tuple(shift) if number % 2 else (0, 0, 0)
            if block.attn.backend(x) == "blocks":
                x = _in_blocks(block, x, window_plan(len(x), size, tuple(window), shifted, x.device))
            else:
                x = block(x, self._mask(size, window, shifted, x.device))
        if self.downsample is not None:
            x = merge(self.downsample, x)
        return x.permute(0, 4, 1, 2, 3)

    def _mask(
        self, size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device
    ) -> WindowMask | None:
        if not any(shift):
            return None
        padded = tuple(-(-length // edge) * edge for length, edge in zip(size, window))
        return window_mask(padded, tuple(window), shift, device)


def _in_blocks(block: SwinTransformerBlock, x: Tensor, plan: WindowPlan) -> Tensor:
    """The Swin block on volumes (B, D, H, W, C), with its attention on the volumes instead of on windows cut out."""

    def attention(x: Tensor) -> Tensor:
        return block.attn.forward_blocks(block.norm1(x), plan)

    def run(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return checkpoint(part, x, use_reentrant=False) if block.use_checkpoint else part(x)

    x = x + block.drop_path(run(attention, x))
    return x + run(block.forward_part2, x)


class _Octants(torch.autograd.Function):
    """The octants of a volume (B, D, H, W, C) side by side, (B, D/2, H/2, W/2, C times their number).

    Eight slices, and in the backward pass one volume: PyTorch would make a volume of each slice and add them up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, octants: tuple[tuple[int, int, int], ...]) -> Tensor:
        ctx.octants, ctx.shape = octants, x.shape
        return torch.cat([x[:, i::2, j::2, k::2] for i, j, k in octants], -1)

    @staticmethod
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


def use_efficient_stages(encoder: nn.Module, attention: str) -> None:
    """Replace the four stages of a MONAI 3D ``SwinTransformer``, in place; stages without window attention stay."""
    for number in range(1, 5):
        stage = getattr(encoder, f"layers{number}")
        if not getattr(stage[0], "use_hyena", False):
            stage[0] = SwinStage(stage[0], attention)
