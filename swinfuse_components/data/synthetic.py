"""Volumes of random organ-like shapes in two random appearances each, for a pre-training without patients."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from filelock import FileLock
from monai import transforms as mt
from scipy import ndimage

APPEARANCES = ("ct", "mr")


def _smooth_field(size: int, coarse: int, rng: np.random.RandomState) -> np.ndarray:
    """Noise of ``coarse`` cubed values, interpolated to ``size`` cubed; standard deviation 1."""
    field = ndimage.zoom(rng.normal(size=[coarse] * 3), size / coarse, order=1, grid_mode=True, mode="nearest")
    return field / field.std()


def _draw_shape(labels: np.ndarray, value: int, radius: float, field: np.ndarray, rng: np.random.RandomState) -> None:
    """Write ``value`` into a sheared, turned and dented ball somewhere in ``labels``."""
    size, centre = len(labels), rng.uniform(0, len(labels), 3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = (np.eye(3) + rng.uniform(-0.4, 0.4, (3, 3))) @ np.diag(1 / rng.uniform(0.5, 1.5, 3)) @ turn / radius
    low = np.clip((centre - 2 * radius).astype(int), 0, size - 1)
    high = np.clip((centre + 2 * radius).astype(int) + 1, 1, size)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    places = np.moveaxis(np.mgrid[box], 0, -1) - centre
    inside = np.linalg.norm(places @ matrix.T, axis=-1) + 0.2 * field[box] < 1
    labels[box][inside] = value


def random_labels(size: int, rng: np.random.RandomState) -> np.ndarray:
    """Label map (size, size, size): 20 to 40 shapes, in two of three cases inside a body, half of these with a skin.

    After the description of anatomix' data engine (Dey et al., "Learning general-purpose biomedical volume
    representations using randomized synthesis", ICLR 2025). 0 is the background.
    """
    labels = np.zeros([size] * 3, dtype=np.int16)
    number, dents = rng.randint(20, 41), _smooth_field(size, 8, rng)
    for value in range(1, number + 1):
        moved = np.roll(dents, rng.randint(size, size=3), (0, 1, 2))
        _draw_shape(labels, value, size * rng.uniform(0.06, 0.22), moved, rng)
    if rng.uniform() < 2 / 3:
        places = (np.moveaxis(np.indices(labels.shape), 0, -1) + 0.5) / size * 2 - 1
        distance = np.linalg.norm(places / rng.uniform(0.7, 1.1, 3), axis=-1) + 0.1 * _smooth_field(size, 4, rng)
        labels[(labels == 0) & (distance < 1)] = number + 1
        labels[distance >= 1] = 0
        if rng.uniform() < 0.5:
            labels[(distance < 1) & (distance > 1 - rng.uniform(0.04, 0.12))] = number + 2
    return labels


def random_appearance(labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """An image in [0, 1] of a label map: a Gaussian of its own for each label, noise of several scales, artefacts."""
    means, deviations = (rng.uniform(*ends, labels.max() + 1) / 255 for ends in ((25, 255), (5, 20)))
    size = len(labels)
    noise = rng.normal(size=labels.shape) + sum(_smooth_field(size, size // k, rng) for k in (4, 16))
    image = means[labels] + deviations[labels] * noise / np.sqrt(3)
    if rng.uniform() < 0.25:
        image[labels == 0] = 0
    artefacts = mt.Compose(
        [
            mt.RandBiasField(prob=0.98),
            mt.ScaleIntensity(),
            mt.RandKSpaceSpikeNoise(prob=0.2),
            mt.RandAdjustContrast(prob=0.5, gamma=(0.5, 2)),
            mt.RandGaussianSmooth(prob=0.5, sigma_x=(0.25, 1), sigma_y=(0.25, 1), sigma_z=(0.25, 1)),
            mt.RandGibbsNoise(prob=0.5, alpha=(0, 0.6)),
            mt.RandGaussianSharpen(prob=0.25),
            mt.RandSimulateLowResolution(prob=0.333, zoom_range=(0.5, 1)),
            mt.ScaleIntensity(),
        ]
    ).set_random_state(state=rng)
    return np.asarray(artefacts(torch.as_tensor(image[None], dtype=torch.float32))[0])


def synthetic_volumes(
    folder: str | Path,
    count: int,
    *,
    size: int = 96,
    spacing: Sequence[float] = (1.5, 1.5, 1.5),
    ct_window: Sequence[float] = (-1000.0, 1000.0),
    seed: int = 0,
) -> str:
    """Write label maps in two appearances each, in SynthRAD's layout, which every pre-training reads.

    ``folder`` gets ``Task1/synthetic/<number>/{ct,mr,mask}.nii.gz`` of ``size`` cubed voxels, and is returned. Nothing
    that is there is written again, so that it serves many runs. ``ct_window`` are the Hounsfield units of the darkest
    and the brightest of the first appearance; ``seed`` is of the first label map, the others follow.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    scales = {"ct": (ct_window[0], ct_window[1] - ct_window[0]), "mr": (0, 1000)}
    affine = np.diag([*spacing, 1.0])
    with FileLock(root / ".lock"):  # the processes of one training
        for number in range(seed, seed + count):
            place = root / "Task1" / "synthetic" / f"synthetic_{number:05d}"
            if (place / "mask.nii.gz").is_file():
                continue
            place.mkdir(parents=True, exist_ok=True)
            rng = np.random.RandomState(number)
            labels = random_labels(size, rng)
            for name in APPEARANCES:
                low, width = scales[name]
                values = np.rint(low + width * random_appearance(labels, rng)).astype(np.int16)
                nib.save(nib.Nifti1Image(values, affine), place / f"{name}.nii.gz")
            # last, as the sign that this one is complete
            nib.save(nib.Nifti1Image(np.ones(labels.shape, np.uint8), affine), place / "mask.nii.gz")
    return str(root)
