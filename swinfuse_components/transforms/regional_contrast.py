"""Contrast by region: Bezier curves and new means for labels and for clusters of the intensities."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .contrast import RandContrast, scale_to_unit


def bezier_curve(inner: np.ndarray, samples: int = 256) -> np.ndarray:
    """y of a cubic Bezier curve from (0, 0) to (1, 1) at equal steps of x; it need not increase.

    ``inner`` are the two inner control points, (2, 2), x before y and x increasing.
    """
    t = np.linspace(0, 1, samples)
    weights = np.stack([3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t)])
    x, y = np.asarray(inner).T @ weights + t**3
    return np.interp(t, x, y)


def intensity_clusters(image: Tensor, number: int, rng: np.random.RandomState, rounds: int = 8) -> Tensor:
    """K-means of the intensities: each voxel's cluster, 0 (darkest) to ``number`` - 1, shaped as ``image``."""
    values = np.quantile(image.numpy(), np.linspace(0, 1, 256))
    centres = np.sort(rng.choice(values, number, replace=False))
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        centres = np.sort([values[nearest == k].mean() if (nearest == k).any() else c for k, c in enumerate(centres)])
    return torch.bucketize(image, torch.as_tensor((centres[1:] + centres[:-1]) / 2, dtype=image.dtype))


class RandCurve(RandContrast):
    """Map the intensities by one random Bezier curve, which need not increase.

    SLAug (Su et al., AAAI 2023), section 3.1: ends at the least and greatest value, two inner control points uniform.

    ``decreasing`` is the chance that the curve is turned upside down.
    """

    def __init__(self, prob: float = 1.0, decreasing: float = 0.5) -> None:
        super().__init__(prob)
        self.decreasing = decreasing

    def draw(self) -> np.ndarray:
        """256 samples of a curve from [0, 1] to [0, 1]."""
        inner = self.R.uniform(size=(2, 2))
        inner[:, 0].sort()
        curve = bezier_curve(inner)
        return 1 - curve if self.R.uniform() < self.decreasing else curve

    def map(self, values: Tensor) -> Tensor:
        """Values of any shape through a fresh curve between their least and their greatest."""
        low, high = float(values.min()), float(values.max())
        places = ((values - low) / max(high - low, 1e-8)).numpy()
        curve = self.draw()
        mapped = np.interp(places, np.linspace(0, 1, len(curve)), curve)
        return torch.as_tensor(low + (high - low) * mapped, dtype=values.dtype)

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """One curve for each channel."""
        return torch.stack([self.map(channel) for channel in image])


class RandLabelCurves(RandContrast):
    """A curve of its own for each label and for the background (the local view of SLAug, AAAI 2023, section 3.1).

    Each region is also scaled by N(1, 0.1), clipped to 0.9 and 1.1, and shifted by N(0, 0.1). Images are in [0, 1] and
    stay there.

    ``decreasing`` is the chance that a curve is turned upside down.
    """

    def __init__(self, prob: float = 1.0, decreasing: float = 0.5) -> None:
        super().__init__(prob)
        self.curve = RandCurve(decreasing=decreasing)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandLabelCurves":
        """Seed the curves too."""
        super().set_random_state(seed, state)
        self.curve.set_random_state(state=self.R)
        return self

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Each region by its own curve; without a label map there is one region."""
        result = image.clone()
        labels = torch.zeros_like(image[:1]) if label is None else label
        for value in labels.unique():
            region = labels[0] == value
            for channel in result:
                factor, shift = np.clip(self.R.normal(1, 0.1), 0.9, 1.1), self.R.normal(0, 0.1)
                channel[region] = self.curve.map(channel[region]) * float(factor) + float(shift)
        return scale_to_unit(result)


class RandRegionContrast(RandContrast):
    """New mean and contrast for clusters of the intensities, then for labels.

    Follows the description of PALETTE (in AugLab, 2025): k-means clusters of the intensities; every cluster y = mu + a
    (x - mean) with mu ~ U(0, 1), abs(a) ~ U(0.5, 2) and a random sign; then each label with its own mu and a, at a
    chance, or (0.3) all with one mean, so that they cannot be told apart by it. The texture within a region stays, its
    place among the others changes, borders within the background appear as well as those of the labels. It works with
    one label and with none. The darkest cluster (air, in every modality) stays dark in most draws. Images are in [0, 1]
    and stay there.

    Args:
        prob: chance of acting.
        clusters: least and greatest number of clusters.
        label_prob: chance of each label to get its own contrast.
        air_prob: chance that air stays the darkest, where it counts as air: up to 0.02 outside all labels.
        smoothing: greatest standard deviation, in voxels, of the Gaussian over the new borders.
    """

    def __init__(
        self,
        prob: float = 1.0,
        *,
        clusters: Sequence[int] = (2, 6),
        label_prob: float = 0.6,
        air_prob: float = 0.75,
        smoothing: float = 0.8,
    ) -> None:
        super().__init__(prob)
        if len(clusters) != 2 or not 1 <= clusters[0] <= clusters[1] <= 256:
            raise ValueError(f"clusters={list(clusters)}: expected a least and a greatest number, 1 to 256")
        self.clusters = tuple(clusters)
        self.label_prob, self.air_prob, self.smoothing = label_prob, air_prob, smoothing

    def _new(self, values: Tensor, mean: float) -> Tensor:
        slope = self.R.choice([-1, 1]) * self.R.uniform(0.5, 2)
        return mean + float(slope) * (values - values.mean())

    def _channel(self, image: Tensor, label: Tensor) -> Tensor:
        result = image.clone()
        body = (image > 0.02) | (label != 0)
        if not body.any():
            return result
        number = self.R.randint(self.clusters[0], self.clusters[1] + 1)
        cluster = torch.full_like(image, -1, dtype=torch.long)
        cluster[body] = intensity_clusters(image[body], number, self.R)
        for k in range(-1, number):
            region = cluster == k
            if region.any():
                result[region] = self._new(image[region], self.R.uniform())
        shared = self.R.uniform() if self.R.uniform() < 0.3 else None
        for value in label.unique():
            if value != 0 and self.R.uniform() < self.label_prob:
                region = label == value
                result[region] = self._new(image[region], self.R.uniform() if shared is None else shared)
        blurred = ndimage.gaussian_filter(result.numpy(), self.R.uniform(0, self.smoothing))
        result = torch.as_tensor(blurred, dtype=image.dtype)
        if self.R.uniform() < self.air_prob:
            result[~body] = result[body].min()
        return result

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Each channel by itself."""
        labels = torch.zeros_like(image[0]) if label is None else label[0]
        return scale_to_unit(torch.stack([self._channel(channel, labels) for channel in image]))
