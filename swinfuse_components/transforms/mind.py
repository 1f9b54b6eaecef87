"""Self-similarity descriptors: images of shape without contrast."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

NEIGHBOURS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
#: Neighbours at squared distance 2 of one another, all but the six opposite ones: twelve pairs.
PAIRS = [p for p in itertools.combinations(NEIGHBOURS, 2) if sum((x - y) ** 2 for x, y in zip(*p)) == 2]


class MindSSC(Transform):
    """Self-similarity context (MIND-SSC): twelve channels that describe shape and not contrast.

    Heinrich et al., MICCAI 2013, as used by DG-TTA: one channel for each pair of the six-neighbourhood at squared
    distance 2, exp(-(d - min d) / v) with d the squared difference of the image shifted to both neighbours (plus noise
    of 0.05), smoothed by a Gaussian, and v the mean over the channels, kept within 1e-3 and 1e3 of its mean.

    Args:
        dilation: distance of the neighbours in voxels.
        sigma: of the Gaussian, in voxels.
        noise: standard deviation of the noise on the differences, 0 for none (drawn by PyTorch's generator).
    """

    def __init__(self, dilation: int = 1, sigma: float = 1.0, noise: float = 0.0) -> None:
        self.dilation, self.sigma, self.noise = dilation, sigma, noise

    def __call__(self, img: Tensor) -> Tensor:
        """Describe ``img``, (1, D, H, W), by (12, D, H, W) in (0, 1]."""
        image = convert_to_tensor(img, track_meta=False)
        if image.ndim != 4 or image.shape[0] != 1:
            raise ValueError(f"image of shape {tuple(image.shape)}: expected (1, D, H, W)")
        n = self.dilation
        padded = functional.pad(image[None], [n] * 6, mode="replicate")[0, 0]
        shifted = {
            shift: padded[tuple(slice(n + n * s, n + n * s + size) for s, size in zip(shift, image.shape[1:]))]
            for shift in NEIGHBOURS
        }
        distances = []
        for a, b in PAIRS:
            difference = shifted[a] - shifted[b]
            if self.noise:
                difference = difference + self.noise * torch.randn_like(difference)
            smooth = ndimage.gaussian_filter(difference.square().numpy(), self.sigma, mode="nearest")
            distances.append(torch.as_tensor(smooth))
        found = torch.stack(distances)
        found = found - found.amin(0)
        variance = found.mean(0)
        middle = variance.mean().clamp_min(1e-12)
        described = torch.exp(-found / variance.clamp(1e-3 * middle, 1e3 * middle))
        return convert_to_dst_type(described, img)[0]


class MindSSCd(MapTransform):
    """Dictionary form of :class:`MindSSC`.

    Args:
        keys: keys of the images, each (1, D, H, W).
        allow_missing_keys: pass over keys that an item lacks.
        options: of :class:`MindSSC`.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **options: float) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = MindSSC(**options)  # type: ignore[arg-type]

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.transform(item[key])
        return item
