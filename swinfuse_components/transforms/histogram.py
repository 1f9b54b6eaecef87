"""Histogram matching: a test image brought to the intensities of the images a network was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from skimage.exposure import match_histograms
from torch import Tensor

FRACTIONS = np.linspace(0, 1, 101)
BODY_THRESHOLD = 0.05


def body_quantiles(image: Tensor, threshold: float = BODY_THRESHOLD) -> np.ndarray:
    """101 quantiles, from 0 to 1, of the voxels above ``threshold`` in each channel of ``image``, (C, …): (C, 101)."""
    channels = convert_to_tensor(image, track_meta=False).flatten(1).numpy()
    return np.stack([np.quantile(c[c > threshold] if (c > threshold).any() else c, FRACTIONS) for c in channels])


def mean_quantiles(images: Iterable[Tensor], threshold: float = BODY_THRESHOLD) -> list[list[float]]:
    """The mean of :func:`body_quantiles` over the training images, each scaled to [0, 1]; one list for each channel."""
    return np.mean([body_quantiles(image, threshold) for image in images], axis=0).round(5).tolist()


class MatchHistogram(Transform):
    """Map the intensities of the body so that their histogram is the mean one of the training images.

    Each value above ``threshold`` becomes the training value of the same cumulative fraction: monotone, without labels
    or gradients. It is the source matching at test time of SRCSM, whose random convolutions by region train the
    network.

    Args:
        quantiles: (C, Q) values at equal steps of the cumulative fraction, as :func:`mean_quantiles` returns them.
        threshold: voxels up to this value, of an image in [0, 1], are air and stay as they are.

    Raises:
        ValueError: quantiles that decrease, or an image with another number of channels.
    """

    def __init__(self, quantiles: Sequence[Sequence[float]], threshold: float = BODY_THRESHOLD) -> None:
        self.quantiles, self.threshold = np.asarray(quantiles, dtype=float), threshold
        if self.quantiles.ndim != 2 or self.quantiles.shape[1] < 2 or (np.diff(self.quantiles) < 0).any():
            raise ValueError(f"quantiles of shape {self.quantiles.shape}: expected (channels, 2 or more), increasing")

    def __call__(self, img: Tensor) -> Tensor:
        """Match ``img``, (C, D, H, W) in [0, 1]; the type and a MetaTensor's metadata are kept."""
        image = convert_to_tensor(img, track_meta=False).numpy()
        if len(image) != len(self.quantiles):
            raise ValueError(f"image with {len(image)} channel(s), histogram of {len(self.quantiles)}")
        matched = image.copy()
        for channel, wanted in zip(matched, self.quantiles, strict=True):
            body = channel > self.threshold
            if body.any():
                channel[body] = match_histograms(channel[body], wanted)
        return convert_to_dst_type(torch.from_numpy(matched), img)[0]


class MatchHistogramd(MapTransform):
    """Dictionary form of :class:`MatchHistogram`.

    Args:
        keys: keys of the images, each (C, D, H, W).
        quantiles, threshold: see :class:`MatchHistogram`.
        allow_missing_keys: pass over keys that an item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        quantiles: Sequence[Sequence[float]],
        threshold: float = BODY_THRESHOLD,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = MatchHistogram(quantiles, threshold)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.transform(item[key])
        return item
