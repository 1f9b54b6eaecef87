"""MONAI's Swin stage with masks from a cache and the leaner attention: same numbers, same parameter names."""

from __future__ import annotations

import torch
from monai.networks.nets.swin_unetr import BasicLayer, WindowAttention, get_window_size
from torch import Tensor, nn

from .window_attention import EfficientWindowAttention
from .window_mask import WindowMask, window_mask


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
        b, _, d, h, w = x.shape
        window, shift = get_window_size((d, h, w), self.window_size, self.shift_size)
        mask: WindowMask | None = None
        if any(shift):
            padded = tuple(-(-size // edge) * edge for size, edge in zip((d, h, w), window))
            mask = window_mask(padded, tuple(window), tuple(shift), x.device)
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x, mask)
        x = x.reshape(b, d, h, w, -1)
        if self.downsample is not None:
            x = self.downsample(x)
        return x.permute(0, 4, 1, 2, 3)


def use_efficient_stages(encoder: nn.Module, attention: str) -> None:
    """Replace the four stages of a MONAI 3D ``SwinTransformer``, in place; stages without window attention stay."""
    for number in range(1, 5):
        stage = getattr(encoder, f"layers{number}")
        if not getattr(stage[0], "use_hyena", False):
            stage[0] = SwinStage(stage[0], attention)
