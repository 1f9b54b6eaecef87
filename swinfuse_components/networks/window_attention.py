"""MONAI's windowed attention with less memory traffic: same numbers, same parameter names."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from .block_attention import BlockAttention, order_by_kind
from .window_mask import WindowMask

ATTENTION = ("auto", "plain", "blocks", "fused")


class EfficientWindowAttention(nn.Module):
    """Takes over the parameters of one MONAI ``WindowAttention`` and computes the same.

    Ways to compute, by ``attention``: ``"plain"`` as MONAI; ``"blocks"`` a few windows at a time
    (:class:`BlockAttention`); ``"fused"`` PyTorch's scaled-dot-product attention. ``"auto"`` chooses by what was
    measured: on a CPU, ``"blocks"`` takes 0.6 to 0.7 of the plain time in training and half of it in inference at the
    first stage of 96 cubed, while the fused kernel with its additive bias takes 1.5 times it; on a GPU, ``"fused"``
    (not measured by us). Plain it is where the others do not apply: half precision on a CPU, dropout of
    attention weights, tracing and ``torch.compile``.
    """

    def __init__(self, source: WindowAttention, attention: str = "auto") -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"attention: found {attention!r}, expected one of {ATTENTION}")
        self.attention = attention
        self.num_heads, self.scale = source.num_heads, source.scale
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer("relative_position_index", source.relative_position_index)
        self.qkv = source.qkv
        self.attn_drop = source.attn_drop
        self.proj = source.proj
        self.proj_drop = source.proj_drop

    def forward(self, x: Tensor, mask: WindowMask | Tensor | None) -> Tensor:
        """Windows (B * windows, n, C) and their mask (MONAI's, or one of few kinds) to the same shape."""
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        index = cast(Tensor, self.relative_position_index)[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].reshape(n, n, -1).permute(2, 0, 1).contiguous()
        way = self._way(qkv)
        if way == "plain" or isinstance(mask, Tensor):
            out = self._plain(qkv, bias, mask.dense() if isinstance(mask, WindowMask) else mask)
        elif way == "blocks":
            out = self._blocks(qkv, bias, mask)
        else:
            out = self._fused(qkv, bias, mask)
        return self.proj_drop(self.proj(out))

    def _way(self, qkv: Tensor) -> str:
        dropped = self.training and self.attn_drop.p > 0
        if self.attention == "plain" or dropped or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return "plain"
        if self.attention == "fused" or (self.attention == "auto" and qkv.is_cuda):
            return "fused"
        return "blocks" if qkv.dtype in (torch.float32, torch.float64) else "plain"

    def _plain(self, qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias
        if mask is not None:
            scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask.unsqueeze(1)).flatten(0, 1)
        weights = self.attn_drop(scores.softmax(-1)).to(v.dtype)
        return (weights @ v).transpose(1, 2).flatten(2)

    def _blocks(self, qkv: Tensor, bias: Tensor, mask: WindowMask | None) -> Tensor:
        masks, kinds = (bias.new_zeros(1, 1, 1), (0,)) if mask is None else (mask.patterns, mask.kinds)
        return BlockAttention.apply(qkv, bias, masks, kinds, self.scale)

    def _fused(self, qkv: Tensor, bias: Tensor, mask: WindowMask | None) -> Tensor:
        bias = bias.to(qkv.dtype)
        if mask is None:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return F.scaled_dot_product_attention(q, k, v, bias[None], scale=self.scale).transpose(1, 2).flatten(2)
        # One bias for all windows of a kind, broadcast, in place of one for each window.
        order, back, steps = order_by_kind(mask.kinds, len(qkv), len(qkv), qkv.device)
        q, k, v = qkv.index_select(0, order).permute(2, 0, 3, 1, 4).unbind(0)
        parts = []
        for kind, first, last in steps:
            some, biased = slice(first, last), bias[None] + mask.patterns[kind].to(bias.dtype)
            parts.append(F.scaled_dot_product_attention(q[some], k[some], v[some], biased, scale=self.scale))
        return torch.cat(parts).index_select(0, back).transpose(1, 2).flatten(2)
