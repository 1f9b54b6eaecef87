"""One TensorBoard writer for all handlers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.utils import optional_import
from torch import Tensor

from .distributed import rank

SummaryWriter, _ = optional_import("torch.utils.tensorboard", name="SummaryWriter")


class SilentWriter:
    """Takes every call of a ``SummaryWriter`` and writes nothing: for all processes but the first."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def summary_writer(log_dir: str | Path) -> Any:
    """A ``SummaryWriter`` to give to all of MONAI's TensorBoard handlers; it writes in the first process alone."""
    return SummaryWriter(log_dir=str(log_dir)) if rank() == 0 else SilentWriter()


def middle_slices(*volumes: Tensor) -> tuple[Tensor, ...]:
    """The middle plane along the last axis of volumes (B, C, D, H, W): images (B, C, D, H), for TensorBoard."""
    return tuple(volume[..., volume.shape[-1] // 2].float() for volume in volumes)
