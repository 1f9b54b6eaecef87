"""The masks of shifted windows, built once for each shape and device."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import torch
from monai.networks.nets.swin_unetr import compute_mask
from torch import Tensor


class WindowMask(NamedTuple):
    """Which pairs of voxels of a shifted window may not attend to each other.

    Windows at the far end of an axis hold voxels from both ends of the volume; all others hold none. So there are at
    most two kinds of window an axis, eight in all, whatever their number: 4 MiB where MONAI's mask of the first
    stage at 96 cubed takes 154.

    Attributes:
        patterns: (kinds, n, n), 0 where attention is allowed and -100 where not; n voxels in a window.
        kinds: the kind of each window, in the order of MONAI's ``window_partition``.
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
