"""From files to arrays on one grid: the beginning of every preprocessing."""

from collections.abc import Callable, Sequence

import torch
from monai.transforms import EnsureChannelFirstd, EnsureTyped, LoadImaged, Orientationd, Spacingd


def load_on_grid(
    images: str | Sequence[str], spacing: Sequence[float] | None, *, labels: Sequence[str] = (), load: bool = True
) -> list[Callable]:
    """Transforms that read volumes (C, D, H, W) and lay them on right-anterior-superior axes.

    Args:
        images: their keys; interpolated linearly.
        spacing: voxel size in mm; None keeps that of the files.
        labels: keys of label maps and masks, which keep their values.
        load: False where the items hold tensors (C, D, H, W) with an affine instead of files.
    """
    images = [images] if isinstance(images, str) else list(images)
    keys = [*images, *labels]
    modes = ["bilinear"] * len(images) + ["nearest"] * len(labels)
    return [
        # two transforms, since MONAI Deploy leaves the first one out
        *([LoadImaged(keys, image_only=True), EnsureChannelFirstd(keys)] if load else []),
        EnsureTyped(keys, dtype=torch.float32, track_meta=True),
        Orientationd(keys, axcodes="RAS", labels=None),
        *([Spacingd(keys, pixdim=spacing, mode=modes)] if spacing else []),
    ]
