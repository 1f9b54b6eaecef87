"""Surface distances in millimetres."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor
from monai.metrics import HausdorffDistanceMetric, SurfaceDistanceMetric

__all__ = ["HausdorffDistanceInMillimetres", "SurfaceDistanceInMillimetres"]


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
