"""Windows of a volume: the masks of shifted ones, and which voxels attend to which; built once for each shape."""

import itertools
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.nets.swin_unetr import compute_mask, window_partition
from torch import Tensor


class WindowMask(NamedTuple):
    """Which pairs of voxels of a shifted window may not attend to each other.

    Windows at the far end of an axis hold voxels from both ends of the volume; all others hold none. So there are at
    most two kinds of window an axis, eight in all: 4 MiB where MONAI's mask of the first stage at 96 cubed takes 154.
    ``patterns`` (kinds, n, n) are 0 where attention is allowed and -100 where not, for n voxels in a window; ``kinds``
    are those of the windows, in the order of MONAI's ``window_partition``.
    """

    patterns: Tensor
    kinds: tuple[int, ...]

    def dense(self) -> Tensor:
        """The mask as MONAI's ``compute_mask`` gives it, (windows, n, n)."""
        return self.patterns[list(self.kinds)]


@lru_cache(maxsize=64)
def window_mask(
    size: tuple[int, ...], window_size: tuple[int, ...], shift_size: tuple[int, ...], device: torch.device
) -> WindowMask:
    """The mask for a volume of ``size`` voxels (a multiple of ``window_size``), from a cache after the first call."""
    counts = [s // w for s, w in zip(size, window_size, strict=True)]
    # Made outside inference mode, since such tensors would be unfit for a later training step.
    with torch.inference_mode(False), torch.no_grad():
        # Two windows an axis show every kind; MONAI's own function makes them.
        patterns = compute_mask([min(n, 2) * w for n, w in zip(counts, window_size)], window_size, shift_size, device)
    far = [[min(k // max(n - 1, 1), 1) for k in range(n)] for n in counts]
    rows, columns = (min(n, 2) for n in counts[1:])
    return WindowMask(patterns, tuple((i * rows + j) * columns + k for i, j, k in itertools.product(*far)))


@lru_cache(maxsize=64)
def order_by_kind(
    kinds: tuple[int, ...], windows: int, device: torch.device
) -> tuple[Tensor, Tensor, list[tuple[int, int, int]]]:
    """An order of the windows with equal kinds together, its inverse, and (kind, first, last) of each kind in it."""
    kind_of = [kinds[w % len(kinds)] for w in range(windows)]
    order = sorted(range(windows), key=kind_of.__getitem__)
    parts: list[tuple[int, int, int]] = []
    for kind, members in itertools.groupby(order, key=kind_of.__getitem__):
        first = parts[-1][2] if parts else 0
        parts.append((kind, first, first + len(list(members))))
    with torch.inference_mode(False):
        forth = torch.tensor(order, device=device)
        return forth, forth.argsort(), parts


class WindowKind(NamedTuple):
    """Windows of which the same part lies inside the volume, and in which the same pairs may attend to each other.

    Of n positions in such a window, the q positions ``inside`` hold voxels, the others are padding; ``keys`` are all n,
    those of voxels first. ``mask`` (q, n) is 0 and -100, with the keys in this order; None where every voxel sees all.
    """

    windows: int
    inside: Tensor
    keys: Tensor
    mask: Tensor | None

    def key_bias(self, bias: Tensor) -> Tensor:
        """The bias between all positions (heads, n, n) as (heads, q, n), its columns in the order of ``keys``."""
        return bias.index_select(1, self.inside).index_select(2, self.keys)


class WindowPlan(NamedTuple):
    """The kinds of windows of a batch of volumes, at most eight: the last window of an axis may differ from the others.

    ``order`` holds the voxels kind by kind, window by window; ``back`` is its inverse.
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
            keys = torch.cat([inside, padding])
            mask = masks.patterns[int(of_mask[members[0]])][inside][:, keys] if masks else None
            kinds.append(WindowKind(len(members), inside, keys, mask if mask is not None and mask.any() else None))
            order.append(voxels[members][:, inside].flatten())
        rows = torch.cat(order)
        return WindowPlan(tuple(kinds), rows, rows.argsort())
