"""Handing a network that cannot be scripted to ``torch.jit.script`` as its trace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FixedSizeModule(nn.Module):
    """A network as traced for one input size, in a module that ``torch.jit.script`` accepts.

    Args:
        network: takes one image (B, channels, D, H, W).
        in_channels: its channels.
        roi_size: the (D, H, W) it is traced for.
    """

    def __init__(self, network: nn.Module, in_channels: int, roi_size: Sequence[int]) -> None:
        super().__init__()
        parameter = next(network.parameters())
        example = torch.zeros(1, in_channels, *roi_size, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            self.traced = torch.jit.trace(network, example, check_trace=False)

    def forward(self, x: Tensor) -> Tensor:
        """One image of the traced size."""
        return self.traced(x)
