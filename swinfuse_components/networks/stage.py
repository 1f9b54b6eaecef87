"""MONAI's Swin stage with masks from a cache and the leaner attention: same numbers, same parameter names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformerBlock, WindowAttention, get_window_size
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .merging import merge
from .window_attention import EfficientWindowAttention
from .window_mask import WindowMask, window_mask
from .window_plan import WindowPlan, window_plan


class SwinStage(BasicLayer):
    """Takes over the blocks and the merging of one MONAI ``BasicLayer`` and computes the same.

    MONAI builds the mask of the shifted windows at every forward of every stage; here it comes from a cache by shape
    and device. The attention inside the blocks becomes :class:`EfficientWindowAttention`.

    Args:
        source: the layer; its modules are taken over, not copied.
        attention: see :class:`EfficientWindowAttention`.
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
            if block.attn.way(x) == "blocks":
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
        return block.attn.attend(block.norm1(x), plan)

    def run(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return checkpoint(part, x, use_reentrant=False) if block.use_checkpoint else part(x)

    x = x + block.drop_path(run(attention, x))
    return x + run(block.forward_part2, x)


def use_efficient_stages(encoder: nn.Module, attention: str) -> None:
    """Replace the four stages of a MONAI 3D ``SwinTransformer``, in place; stages without window attention stay."""
    for number in range(1, 5):
        stage = getattr(encoder, f"layers{number}")
        if not getattr(stage[0], "use_hyena", False):
            stage[0] = SwinStage(stage[0], attention)
