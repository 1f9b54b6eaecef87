"""Fixed rules for test time, measured on the training images: their histogram, and structures of one component."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage
from skimage.exposure import match_histograms
from torch import Tensor

FRACTIONS = np.linspace(0, 1, 101)
BODY_THRESHOLD = 0.05
logger = logging.getLogger(__name__)


def body_quantiles(image: Tensor, threshold: float = BODY_THRESHOLD) -> np.ndarray:
    """101 quantiles, from 0 to 1, of the voxels above ``threshold`` in each channel of ``image``, (C, …): (C, 101)."""
    channels = convert_to_tensor(image, track_meta=False).flatten(1).numpy()
    return np.stack([np.quantile(c[c > threshold] if (c > threshold).any() else c, FRACTIONS) for c in channels])


def component_shares(label: Tensor) -> dict[int, float]:
    """The share of each structure of a label map, (1, D, H, W), that is in its largest connected component."""
    array = convert_to_tensor(label, track_meta=False)[0].numpy()
    shares = {}
    for value in np.unique(array[array != 0]):
        components, _ = ndimage.label(array == value, np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())[1:]
        shares[int(value)] = float(sizes.max() / sizes.sum())
    return shares


def measure_for_test_time(
    items: Sequence[Mapping[str, Any]],
    preprocessing: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    *,
    max_cases: int = 24,
) -> dict[str, Any]:
    """What a model's description keeps for test time, measured on at most ``max_cases`` of its training items.

    ``preprocessing`` makes of each an item with ``image``, (C, D, H, W) in [0, 1], and ``label``, (1, D, H, W).

    Returns:
        ``histogram``, the mean of :func:`body_quantiles` over the cases, or None where more than a tenth of the body
        is at the upper end of the window: what was clipped has lost its order, and matching to it does harm
        (docs/carry_across.md). ``largest_component``, the label values of which 0.95 or more is one connected component
        in every case: of these, and of no others, the largest component is kept.
    """
    quantiles: list[np.ndarray] = []
    shares: dict[int, float] = {}
    for index in np.unique(np.linspace(0, len(items) - 1, max_cases).astype(int)):
        item = preprocessing(items[index])
        quantiles.append(body_quantiles(item["image"]))
        for value, found in component_shares(item["label"]).items():
            shares[value] = min(found, shares.get(value, 1.0))
    mean = np.mean(quantiles, axis=0).round(4)
    clipped = bool((mean[:, FRACTIONS >= 0.9] >= 0.999).all(axis=1).any())
    if clipped:
        logger.info("over a tenth of the training images' body is clipped by the window: histograms are not matched")
    largest = sorted(value for value, least in shares.items() if least >= 0.95)
    return {"histogram": None if clipped else mean.tolist(), "largest_component": largest}


class MatchHistogramd(MapTransform):
    """Map the intensities of the body so that their histogram is the mean one of the training images.

    Each value above 0.05 of an image in [0, 1] becomes the training value of the same cumulative fraction: monotone,
    without labels or gradients; what is below is air and stays as it is. It is the source matching at test time of
    SRCSM, whose random convolutions by region train the network. Type and metadata are kept.

    Args:
        quantiles: (C, Q) values at equal steps of the cumulative fraction, see :func:`measure_for_test_time`.

    Raises:
        ValueError: no quantiles, quantiles that decrease, or an image with another number of channels.
    """

    def __init__(self, keys: KeysCollection, quantiles: Sequence[Sequence[float]] | None) -> None:
        super().__init__(keys)
        if quantiles is None:
            raise ValueError("no quantiles to match: model.json has no 'histogram' (random_contrast.yaml writes it)")
        self.quantiles = np.asarray(quantiles, dtype=float)
        if self.quantiles.ndim != 2 or self.quantiles.shape[1] < 2 or (np.diff(self.quantiles) < 0).any():
            raise ValueError(f"quantiles of shape {self.quantiles.shape}: expected (channels, 2 or more), increasing")

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            matched = convert_to_tensor(item[key], track_meta=False).numpy().copy()
            if len(matched) != len(self.quantiles):
                raise ValueError(f"image with {len(matched)} channel(s), histogram of {len(self.quantiles)}")
            for channel, wanted in zip(matched, self.quantiles, strict=True):
                body = channel > BODY_THRESHOLD
                if body.any():
                    channel[body] = match_histograms(channel[body], wanted)
            item[key] = convert_to_dst_type(torch.from_numpy(matched), item[key])[0]
        return item
