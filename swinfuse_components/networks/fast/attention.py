"""MONAI's windowed attention with less memory traffic: same numbers, same parameter names."""

from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from .blocks import SAFE_SCORE, BlockAttention
from .windows import WindowMask, WindowPlan, order_by_kind

ATTENTION = ("auto", "plain", "blocks", "fused")


class EfficientWindowAttention(nn.Module):
    """Takes over the parameters of one MONAI ``WindowAttention`` and computes the same.

    Ways to compute, by ``attention``: ``"plain"`` as MONAI; ``"blocks"`` a few windows at a time
    (:class:`BlockAttention`); ``"fused"`` PyTorch's scaled-dot-product attention. ``"auto"`` chooses by what was
    measured: on a CPU, ``"blocks"`` takes 0.6 to 0.7 of the plain time in training and half of it in inference at the
    first stage of 96 cubed, while the fused kernel with its additive bias takes 1.5 times it; on a GPU, ``"fused"``
    (not measured by us). Plain it is where the others do not apply: dropout of attention weights, tracing and
    ``torch.compile``.
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
        bias = self._bias(n)
        if self.backend(qkv) != "fused" or isinstance(mask, Tensor):
            out = self._plain(qkv, bias, mask.dense() if isinstance(mask, WindowMask) else mask)
        else:
            out = self._fused(qkv, bias, mask)
        return self.proj_drop(self.proj(out))

    def forward_blocks(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """The same in all windows of volumes (B, D, H, W, C), in blocks; nothing need be padded, shifted or cut."""
        qkv = self.qkv(x).view(-1, 3, self.num_heads, x.shape[-1] // self.num_heads)
        kind = plan.kinds[0]
        bias = self._bias(len(kind.keys))
        # What a block makes of the zeros that it pads with.
        padding = qkv.new_zeros(qkv.shape[1:]) if self.qkv.bias is None else self.qkv.bias.view(qkv.shape[1:])
        # By Cauchy and Schwarz no score is larger than this; if it is small, nothing need be taken off before exp.
        with torch.no_grad():
            q, k = qkv[:, :2].norm(dim=-1).amax(0)
            largest = self.scale * (q * k.maximum(padding[1].norm(dim=-1))).max() + bias.abs().max()
            safe = bool(largest < SAFE_SCORE)
        # In half precision the products would be no quicker, since they are short, and the sums less exact.
        full = torch.promote_types(qkv.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            biases = [kind.key_bias(bias).to(full) for kind in plan.kinds]
            out = BlockAttention.apply(qkv.to(full), padding[1:].to(full), plan, self.scale, safe, *biases)
        return self.proj_drop(self.proj(out.to(qkv.dtype).view_as(x)))

    def _bias(self, n: int) -> Tensor:
        """Bias of the relative positions, (heads, n, n)."""
        index = cast(Tensor, self.relative_position_index)[:n, :n].reshape(-1)
        return self.relative_position_bias_table[index].reshape(n, n, -1).permute(2, 0, 1).contiguous()

    def backend(self, x: Tensor) -> str:
        """``"plain"``, ``"blocks"`` or ``"fused"``, for an input of the device and type of ``x``."""
        dropped = self.training and self.attn_drop.p > 0
        if self.attention == "plain" or dropped or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return "plain"
        if self.attention == "fused" or (self.attention == "auto" and x.is_cuda):
            return "fused"
        return "blocks"

    def _plain(self, qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias
        if mask is not None:
            scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask.unsqueeze(1)).flatten(0, 1)
        weights = self.attn_drop(scores.softmax(-1)).to(v.dtype)
        return (weights @ v).transpose(1, 2).flatten(2)

    def _fused(self, qkv: Tensor, bias: Tensor, mask: WindowMask | None) -> Tensor:
        bias = bias.to(qkv.dtype)
        if mask is None:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return F.scaled_dot_product_attention(q, k, v, bias[None], scale=self.scale).transpose(1, 2).flatten(2)
        # One bias for all windows of a kind, broadcast, in place of one for each window.
        order, back, places = order_by_kind(mask.kinds, len(qkv), qkv.device)
        q, k, v = qkv.index_select(0, order).permute(2, 0, 3, 1, 4).unbind(0)
        parts = []
        for kind, first, last in places:
            some, biased = slice(first, last), bias[None] + mask.patterns[kind].to(bias.dtype)
            parts.append(F.scaled_dot_product_attention(q[some], k[some], v[some], biased, scale=self.scale))
        return torch.cat(parts).index_select(0, back).transpose(1, 2).flatten(2)
