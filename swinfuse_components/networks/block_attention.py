"""Windowed attention a few windows at a time, in memory that fits the processor's cache."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Attention weights held at a time (1 MiB in float32): a step of the loop then stays within a core's second-level cache.
ELEMENTS_AT_A_TIME = 2**18
# Scores up to this size go through the exponential as they are: exp(60) times any number of keys is far from the
# largest float32, exp(-60) far from the smallest.
SAFE_SCORE = 60.0


@lru_cache(maxsize=64)
def order_by_kind(
    kinds: tuple[int, ...], windows: int, step: int, device: torch.device
) -> tuple[Tensor, Tensor, list[tuple[int, int, int]]]:
    """An order of the windows with equal kinds together, its inverse, and (kind, first, last) of each step in it."""
    kind_of = [kinds[w % len(kinds)] for w in range(windows)]
    order = sorted(range(windows), key=kind_of.__getitem__)
    steps: list[tuple[int, int, int]] = []
    for kind in sorted(set(kinds)):
        members = [place for place, w in enumerate(order) if kind_of[w] == kind]
        steps += [
            (kind, first, min(first + step, members[-1] + 1)) for first in range(members[0], members[-1] + 1, step)
        ]
    with torch.inference_mode(False):
        forth = torch.tensor(order, device=device)
        return forth, forth.argsort(), steps


def _sorted_qkv(qkv: Tensor, order: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries, keys and values, each contiguous (windows, heads, n, d), the windows in that order."""
    q, k, v = qkv.index_select(0, order).permute(2, 0, 3, 1, 4).contiguous()
    return q * scale, k, v


def _scores(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """q k^T + bias for some windows of one kind, (windows, heads, n, n)."""
    return torch.matmul(q, k.transpose(-2, -1)).add_(bias)


class BlockAttention(torch.autograd.Function):
    """softmax(scale Q K^T + bias) V a few windows at a time, recomputed in the backward pass.

    The plain form holds the weights of all windows (0.5 GiB a block of the first stage at 96 cubed) several times
    over, and much of its time goes into moving them. Here the weights of a few windows live at a time; what is kept
    for the backward pass is one or two numbers a row. The exponentials are not normalised, the results are, and
    windows of one kind share one bias in place of a mask for each.

    Arguments of ``apply``: ``qkv`` (windows, n, 3, heads, d); ``bias`` (heads, n, n), added to the scores; ``masks``
    (kinds, n, n) of 0 and -100, added too; ``kinds``, which mask each window has, repeated along the batch; ``scale``
    of the scores. Result: (windows, n, heads * d). Gradients reach ``qkv`` and ``bias``, once.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, masks: Tensor, kinds: tuple[int, ...], scale: float) -> Tensor:
        windows, n, _, heads, d = qkv.shape
        at_a_time = max(1, ELEMENTS_AT_A_TIME // (heads * n * n))
        order, back, steps = order_by_kind(kinds, windows, at_a_time, qkv.device)
        q, k, v = _sorted_qkv(qkv, order, scale)
        out, total = torch.empty_like(q), q.new_empty((windows, heads, n))
        # By Cauchy and Schwarz no score is larger than this; if it is small, nothing need be taken off before exp.
        largest = (q.norm(dim=-1).amax(-1) * k.norm(dim=-1).amax(-1)).max() + bias.abs().max()
        top = None if largest < SAFE_SCORE else torch.empty_like(total)
        masks = masks if top is not None else masks.masked_fill(masks < 0, -torch.inf)
        bias = bias + masks.unsqueeze(1).to(bias.dtype)
        for kind, first, last in steps:
            weights = _scores(q[first:last], k[first:last], bias[kind])
            if top is not None:
                torch.amax(weights, -1, out=top[first:last])
                weights.sub_(top[first:last].unsqueeze(-1))
            weights.exp_()
            torch.sum(weights, -1, out=total[first:last])
            torch.matmul(weights, v[first:last], out=out[first:last])
        out = out.div_(total.unsqueeze(-1)).index_select(0, back).transpose(1, 2).flatten(2)
        ctx.save_for_backward(qkv, bias, out, total, top)
        ctx.kinds, ctx.scale = kinds, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        qkv, bias, out, total, top = ctx.saved_tensors
        windows, n, _, heads, d = qkv.shape
        order, back, steps = order_by_kind(
            ctx.kinds, windows, max(1, ELEMENTS_AT_A_TIME // (heads * n * n)), qkv.device
        )
        q, k, v = _sorted_qkv(qkv, order, ctx.scale)
        # With weights w = exp / total the softmax's derivative is w * (dL/dw - inner), inner = sum of w dL/dw, which is
        # out . grad. The total goes into grad, and the difference comes out of one product, [grad, -inner] [v, 1]^T.
        grad = grad.unflatten(2, (heads, d))
        inner = (out.view_as(grad) * grad).sum(-1, keepdim=True)
        g = torch.cat([grad, -inner], -1).index_select(0, order).transpose(1, 2) / total.unsqueeze(-1)
        v = torch.cat([v, v.new_ones(()).expand(*v.shape[:-1], 1)], -1)
        g_only = g[..., :-1].contiguous()
        grads, grad_bias = qkv.new_empty((3, windows, heads, n, d)), torch.zeros_like(bias[0])
        for kind, first, last in steps:
            weights = _scores(q[first:last], k[first:last], bias[kind])
            if top is not None:
                weights.sub_(top[first:last].unsqueeze(-1))
            weights.exp_()
            torch.matmul(weights.transpose(-2, -1), g_only[first:last], out=grads[2, first:last])
            scores = weights.mul_(torch.matmul(g[first:last], v[first:last].transpose(-2, -1)))
            grad_bias.add_(scores[0] if last - first == 1 else scores.sum(0))
            torch.matmul(scores, k[first:last], out=grads[0, first:last])
            torch.matmul(scores.transpose(-2, -1), q[first:last], out=grads[1, first:last])
        grads[0].mul_(ctx.scale)
        return grads.permute(1, 3, 0, 2, 4).index_select(0, back), grad_bias, None, None, None
