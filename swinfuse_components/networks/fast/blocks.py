"""Windowed attention a few windows at a time, in memory that fits the processor's cache."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .windows import WindowKind, WindowPlan

# Attention weights held at a time (1 MiB in float32): a step of the loop then stays within a core's second-level cache.
ELEMENTS_AT_A_TIME = 2**18
# Scores up to this size go through the exponential as they are, and what the mask hides is set to zero afterwards: with
# MONAI's -100 in the scores it would weigh less than exp(2 * 38 - 100) of the rest, far below float32's precision.
SAFE_SCORE = 38.0
# The exponential of a smaller number is no normal float32, and takes the processor a hundred times as long.
SMALLEST_SCORE = -80.0


class _Windows(NamedTuple):
    """The windows of one kind: queries (heads * windows, q, d), keys and values (heads * windows, keys, d)."""

    kind: WindowKind
    rows: slice
    q: Tensor
    k: Tensor
    v: Tensor


def _unpack(qkv: Tensor, padding: Tensor, plan: WindowPlan, scale: float) -> Iterator[_Windows]:
    """The windows kind by kind, each in memory of its own; ``rows`` is their place in the plan's order."""
    first = 0
    for kind in plan.kinds:
        rows = slice(first, first + kind.windows * len(kind.inside))
        q, k, v = _by_window(qkv.index_select(0, plan.order[rows]), kind).permute(2, 3, 0, 1, 4).contiguous()
        if empty := len(kind.keys) - len(kind.inside):
            k_padding, v_padding = padding[:, :, None, None].expand(-1, -1, kind.windows, empty, -1)
            k, v = torch.cat([k, k_padding], 2), torch.cat([v, v_padding], 2)
        yield _Windows(kind, rows, q.mul_(scale).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
        first = rows.stop


def _by_window(rows: Tensor, kind: WindowKind) -> Tensor:
    return rows.unflatten(0, (kind.windows, len(kind.inside)))


def _steps(part: _Windows) -> Iterator[tuple[slice, slice]]:
    """A few windows of one head at a time, whose bias then stays in the cache, or all windows of a few heads.

    The slices are of the heads, and of the heads' windows.
    """
    windows, heads = part.kind.windows, len(part.q) // part.kind.windows
    step = max(1, ELEMENTS_AT_A_TIME // (part.q.shape[1] * part.k.shape[1]))
    together = max(1, step // windows)
    for head in range(0, heads, together):
        last = min(head + together, heads)
        for first in range(head * windows, last * windows, step if together == 1 else heads * windows):
            yield slice(head, last), slice(first, min(first + step, last * windows))


class _Exponentials:
    """exp(q k^T + bias + mask), or, where that could overflow, with the largest of each row taken off first."""

    def __init__(self, part: _Windows, bias: Tensor, top: Tensor | None) -> None:
        self.part, self.top, self.bias = part, top, bias
        mask = part.kind.mask
        self.seen = None if mask is None or top is not None else (mask == 0).to(bias.dtype)
        if mask is not None and top is not None:
            self.bias = bias + mask.to(bias.dtype)

    def __call__(self, heads: slice, some: slice, find_top: bool = False) -> Tensor:
        weights = torch.bmm(self.part.q[some], self.part.k[some].transpose(1, 2))
        _by_head(weights, heads).add_(self.bias[heads].unsqueeze(1))
        if self.top is not None:
            if find_top:
                torch.amax(weights, -1, out=self.top[some])
            weights.sub_(self.top[some].unsqueeze(-1)).clamp_(min=SMALLEST_SCORE)
        weights.exp_()
        return weights if self.seen is None else weights.mul_(self.seen)


def _by_head(weights: Tensor, heads: slice) -> Tensor:
    return weights.unflatten(0, (heads.stop - heads.start, -1))


class BlockAttention(torch.autograd.Function):
    """softmax(scale Q K^T + bias) V in the windows of a volume, a few at a time, recomputed in the backward pass.

    The plain form holds the weights of all windows (0.5 GiB a block of the first stage at 96 cubed) several times
    over, and much of its time goes into moving them. Here the weights of a few windows live at a time; what is kept
    for the backward pass is one or two numbers a row. The exponentials are not normalised, the results are. Voxels
    are taken from the volume and put back into it by index, so that nothing is padded, rolled or cut into windows;
    the padding asks nothing.

    Arguments of ``apply``: ``qkv`` (voxels of the batch, 3, heads, d); ``padding`` (2, heads, d), its key and value;
    the plan; ``scale`` of the scores; ``safe``, whether no score can overflow the exponential; for each kind of the
    plan its bias (heads, q, keys). Result: (voxels, heads * d). There are no second derivatives: a RuntimeError.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: Any, qkv: Tensor, padding: Tensor, plan: WindowPlan, scale: float, safe: bool, *biases: Tensor
    ) -> Tensor:
        out = torch.empty_like(qkv[:, 0], memory_format=torch.contiguous_format)
        kept = []
        for part, bias in zip(_unpack(qkv, padding, plan, scale), biases, strict=True):
            result, total = torch.empty_like(part.q), part.q.new_empty(part.q.shape[:2])
            top = None if safe else torch.empty_like(total)
            exponentials = _Exponentials(part, bias, top)
            for heads, some in _steps(part):
                weights = exponentials(heads, some, find_top=True)
                torch.sum(weights, -1, out=total[some])
                torch.bmm(weights, part.v[some], out=result[some])
            result = result.div_(total.unsqueeze(-1)).unflatten(0, (-1, part.kind.windows))
            _by_window(out[part.rows], part.kind).copy_(result.permute(1, 2, 0, 3))
            kept += [total, top]
        out = out.flatten(1).index_select(0, plan.back)
        ctx.save_for_backward(qkv, padding, out, *biases, *kept)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError("attention='blocks' has no second derivatives: build the network with attention='plain'")
        qkv, padding, out, *others = ctx.saved_tensors
        plan: WindowPlan = ctx.plan
        biases, kept = others[: len(plan.kinds)], others[len(plan.kinds) :]
        # With weights w = exp / total the softmax's derivative is w * (dL/dw - inner), inner = sum of w dL/dw, which is
        # out . grad. The total goes into grad, and the difference comes out of one product, [grad, -inner] [v, 1]^T.
        grad = grad.unflatten(1, qkv.shape[2:])
        grad = torch.cat([grad, -(out.view_as(grad) * grad).sum(-1, keepdim=True)], -1)
        grads, grad_padding, grad_biases = torch.empty_like(qkv), torch.zeros_like(padding), []
        for part, bias, total, top in zip(
            _unpack(qkv, padding, plan, ctx.scale), biases, kept[::2], kept[1::2], strict=True
        ):
            g = _by_window(grad.index_select(0, plan.order[part.rows]), part.kind).permute(2, 0, 1, 3)
            g = g.flatten(0, 1).div_(total.unsqueeze(-1))
            g_only, v_one = g[..., :-1].contiguous(), torch.cat([part.v, part.v.new_ones(*part.v.shape[:-1], 1)], -1)
            grad_q, grad_k, grad_v = torch.empty_like(part.q), torch.empty_like(part.k), torch.empty_like(part.v)
            grad_bias = torch.zeros_like(bias)
            exponentials = _Exponentials(part, bias, top)
            for heads, some in _steps(part):
                weights = exponentials(heads, some)
                torch.bmm(weights.transpose(1, 2), g_only[some], out=grad_v[some])
                scores = weights.mul_(torch.bmm(g[some], v_one[some].transpose(1, 2)))
                grad_bias[heads].add_(_by_head(scores, heads).sum(1))
                torch.bmm(scores, part.k[some], out=grad_q[some])
                torch.bmm(scores.transpose(1, 2), part.q[some], out=grad_k[some])
            grad_biases.append(grad_bias)
            parts = [x.unflatten(0, (-1, part.kind.windows)) for x in (grad_q.mul_(ctx.scale), grad_k, grad_v)]
            voxels = len(part.kind.inside)
            grad_padding += torch.stack([x[:, :, voxels:].sum((1, 2)) for x in parts[1:]])
            rows = _by_window(grads[part.rows], part.kind)
            for number, x in enumerate(parts):
                rows[:, :, number].copy_(x[:, :, :voxels].permute(1, 2, 0, 3))
        return grads.flatten(1).index_select(0, plan.back).view_as(grads), grad_padding, None, None, None, *grad_biases
