"""Dice of each region under its name, and surface distances in millimetres."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.handlers import MeanDice
from monai.metrics import HausdorffDistanceMetric, SurfaceDistanceMetric

__all__ = ["HausdorffDistanceInMillimetres", "SurfaceDistanceInMillimetres", "dice_of_regions"]


def dice_of_regions(regions: Iterable[str]) -> dict[str, MeanDice]:
    """One metric for each region, so that every log, table and tracker gets a number and not a vector.

    Args:
        regions: names of the channels of ``pred`` and ``label``, in their order.

    Returns:
        ``{"val_dice_<region>": handler}``; what trackers refuse in a name becomes an underscore.
    """

    def channel(number: int) -> Callable[[Any], tuple[list[torch.Tensor], ...]]:
        return lambda output: tuple([item[key][number : number + 1] for item in output] for key in ("pred", "label"))

    return {
        "val_dice_" + re.sub(r"[^\w. -]", "_", name): MeanDice(
            include_background=True, output_transform=channel(number)
        )
        for number, name in enumerate(regions)
    }


def _spacing(y: torch.Tensor) -> list[float]:
    if not isinstance(y, MetaTensor):
        raise TypeError(f"the label is a {type(y).__name__}, expected a MetaTensor whose affine gives the voxel size")
    affine = y.affine[0] if y.affine.ndim == 3 else y.affine
    return [float(size) for size in affine[:3, :3].double().norm(dim=0)]


class HausdorffDistanceInMillimetres(HausdorffDistanceMetric):
    """MONAI's Hausdorff distance with the spacing of each label, which its ignite handler cannot pass on."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super()._compute_tensor(y_pred, y, spacing=_spacing(y), **kwargs)


class SurfaceDistanceInMillimetres(SurfaceDistanceMetric):
    """MONAI's average surface distance with the spacing of each label."""

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super()._compute_tensor(y_pred, y, spacing=_spacing(y), **kwargs)
