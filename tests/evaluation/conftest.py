"""Small data sets on disk, and networks whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from monai.transforms import Compose, EnsureTyped

from swinfuse_components.evaluation.models import NetworkSource
from swinfuse_components.evaluation.targets import Target

from ..models import DESCRIPTION

SHAPE = (18, 20, 16)


class Threshold(torch.nn.Module):
    """A network of one weight: foreground is what is brighter than it."""

    def __init__(self, level: float = 0.5) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 50 * (x[:, :1] - self.level)
        return torch.cat([-score, score], 1)


def write_cases(folder: Path, count: int = 4, channels: int = 1) -> list[dict]:
    """Bright boxes in a dark noise, with a box of its own and its label; the second channel is turned over."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    affine = np.diag([-1.5, -0.8, 3.0, 1.0])  # left, posterior, superior: not what a network is given
    items = []
    for n in range(count):
        label = np.zeros(SHAPE, np.uint8)
        label[4 + n : 12, 5:15, 4 : 9 + n] = 1
        image = rng.uniform(0, 0.3, SHAPE) + 0.6 * label
        files = []
        for c in range(channels):
            files.append(str(folder / f"case{n}_{c:04d}.nii.gz"))
            nib.save(nib.Nifti1Image((image if c == 0 else 1 - image).astype(np.float32), affine), files[-1])
        nib.save(nib.Nifti1Image(label, affine), folder / f"case{n}.nii.gz")
        image_entry = files if channels > 1 else files[0]
        items.append({"image": image_entry, "label": str(folder / f"case{n}.nii.gz"), "patient": f"p{n}"})
    return items


@pytest.fixture()
def items(tmp_path: Path) -> list[dict]:
    return write_cases(tmp_path / "data")


@pytest.fixture()
def target(items: list[dict]) -> Target:
    return Target("Boxes", items, modality="mr", classes={"box": 1})


@pytest.fixture()
def make_source(tmp_path: Path) -> Callable[..., NetworkSource]:
    def make(
        name: str = "Threshold",
        level: float = 0.45,
        *,
        preprocessing: tuple = (),
        training_patients: tuple = (),
        **options: object,
    ) -> NetworkSource:
        checkpoint = tmp_path / f"{name}.pt"
        torch.save({"model": Threshold(level).state_dict()}, checkpoint)
        description = {**DESCRIPTION, "name": "CT boxes", "training_patients": list(training_patients)}
        source = NetworkSource(description, checkpoint, name=name, **options)
        source.network, source.inferer = Threshold(0.0), SimpleInferer()
        source.preprocessing = Compose(list(preprocessing) or [EnsureTyped("image")])
        return source

    return make
