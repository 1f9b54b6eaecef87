"""Flip test-time augmentation, and the table of volumes."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from ..engines.files import atomic_write, csv_cell


class FlipAveragingInferer(Inferer):
    """Average the logits over mirrored copies of the input (flip test-time augmentation).

    ``inferer`` handles each copy, usually a sliding window. All ``2 ** len(axes)`` combinations of the mirrored spatial
    axes are averaged. Do not mirror an axis that tells left from right if the labels do.
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int] = ()) -> None:
        super().__init__()
        self.inferer = inferer
        self.axes = tuple(axes)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor] | nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits (B, classes, *spatial) for ``inputs`` (B, C, *spatial)."""
        total = self.inferer(inputs, network, *args, **kwargs)
        flips = [
            dims for size in range(1, len(self.axes) + 1) for dims in combinations([a + 2 for a in self.axes], size)
        ]
        for dims in flips:
            total = total + self.inferer(inputs.flip(dims), network, *args, **kwargs).flip(dims)
        return total / (1 + len(flips))


class VolumeTable:
    """Handler that writes the volume of every class in millilitres, one row per image, as CSV.

    Reads the label maps that postprocessing leaves in ``engine.state.output`` (each a MetaTensor of shape (1, D, H, W)
    whose affine is in millimetres; a voxel's volume is the absolute determinant of its 3 x 3 part).

    The CSV file is written at the end of a run; one of other content is kept as ``<name>.previous``. ``labels`` are
    ``{value: name}``; ``0`` is left out.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Mapping[Any, str]) -> None:
        self.path = Path(path)
        self.labels = {int(value): name for value, name in labels.items() if int(value) != 0}
        self.rows: list[dict[str, str]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.write())

    def __call__(self, engine: Engine) -> None:
        """Add a row for each image of the batch."""
        for item in engine.state.output:
            label_map: MetaTensor = item["pred"]
            millilitres = float(torch.linalg.det(label_map.affine[:3, :3].double()).abs()) / 1000
            name = label_map.meta.get("filename_or_obj") or item["image"].meta.get("filename_or_obj", "")
            volumes = {f"{name} (ml)": int((label_map == value).sum()) for value, name in self.labels.items()}
            self.rows.append({"image": str(name), **{k: f"{v * millilitres:.4f}" for k, v in volumes.items()}})

    def write(self) -> None:
        """Write the collected rows."""
        columns = ["image", *(f"{name} (ml)" for name in self.labels.values())]
        table = pd.DataFrame(self.rows, columns=columns).map(csv_cell)
        with atomic_write(self.path, keep_other=True) as stream:
            table.rename(columns=csv_cell).to_csv(stream, index=False)
