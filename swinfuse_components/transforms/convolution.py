"""Random convolution: another contrast of the same anatomy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn import functional


class RandConvolution(RandomizableTransform):
    """Pass the image through a small network with fresh random weights, and blend the result with the image.

    The global intensity non-linear augmentation (GIN) of Ouyang et al., "Causality-inspired single-source domain
    generalization for medical image segmentation", IEEE TMI 2023 (https://arxiv.org/abs/2111.12525), section III-A:
    shapes stay, contrast changes. Every channel goes through the same draw by itself.

    Args:
        prob: chance of applying it.
        layers: number of convolutions; between them a leaky ReLU.
        hidden_channels: width of the network.
        kernel_sizes: odd sizes, one of which is drawn for each layer.
        output: how the blend is brought back: ``"range"`` to the least and greatest value of the image (for images
            scaled to [0, 1]), ``"norm"`` to its Frobenius norm, as in the publication (for images of zero mean).

    Raises:
        ValueError: on settings out of range.
    """

    def __init__(
        self,
        prob: float = 0.5,
        *,
        layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        output: str = "range",
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        if layers < 1 or hidden_channels < 1 or not kernel_sizes or any(k < 1 or k % 2 == 0 for k in kernel_sizes):
            raise ValueError(
                f"layers={layers}, hidden_channels={hidden_channels}, kernel_sizes={list(kernel_sizes)}: "
                "expected at least 1, and odd kernel sizes"
            )
        if output not in ("range", "norm"):
            raise ValueError(f"output={output!r}: expected 'range' or 'norm'")
        self.layers = layers
        self.hidden_channels = hidden_channels
        self.kernel_sizes = tuple(kernel_sizes)
        self.output = output
        self.blend = 0.0
        self.weights: list[tuple[np.ndarray, np.ndarray]] = []

    def randomize(self, data: object = None) -> None:
        """Draw whether to act, the blend, and the weights."""
        super().randomize(None)
        if not self._do_transform:
            return
        self.blend = self.R.uniform()
        widths = [1] + [self.hidden_channels] * (self.layers - 1) + [1]
        self.weights = []
        for width_in, width_out in zip(widths[:-1], widths[1:], strict=True):
            size = self.kernel_sizes[self.R.randint(len(self.kernel_sizes))]
            kernel = self.R.normal(size=(width_out, width_in, size, size, size))
            self.weights.append((kernel, self.R.normal(size=width_out)))

    def _convolve(self, image: torch.Tensor) -> torch.Tensor:
        features = image[:, None]  # channels take the place of the batch
        for number, (kernel, bias) in enumerate(self.weights):
            features = functional.leaky_relu(features) if number else features
            weight, offset = (torch.as_tensor(values, dtype=image.dtype) for values in (kernel, bias))
            features = functional.conv3d(features, weight, offset, padding=kernel.shape[-1] // 2)
        return features[:, 0]

    def _restore(self, blended: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        axes = (1, 2, 3)
        if self.output == "norm":
            norm = blended.square().sum(axes, keepdim=True).sqrt()
            return blended * image.square().sum(axes, keepdim=True).sqrt() / norm.clamp_min(1e-8)
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        least, greatest = blended.amin(axes, keepdim=True), blended.amax(axes, keepdim=True)
        return low + (blended - least) / (greatest - least).clamp_min(1e-8) * (high - low)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Augment ``img``, (C, D, H, W); the type, and a MetaTensor's metadata, are kept."""
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        image = convert_to_tensor(img, dtype=torch.float32, track_meta=False)
        if image.ndim != 4:
            raise ValueError(f"image of shape {tuple(image.shape)}: expected (C, D, H, W)")
        # brought to the image's own scale before the blend, so that the blend means the same for every draw
        convolved = self._restore(self._convolve(image), image)
        blended = self._restore(self.blend * convolved + (1 - self.blend) * image, image)
        return convert_to_dst_type(blended, img)[0]


class RandConvolutiond(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandConvolution`; all the keys of an item get the same draw.

    Args:
        keys: keys of the images, each (C, D, H, W).
        prob: chance of applying it.
        allow_missing_keys: pass over keys that an item lacks.
        options: further arguments of :class:`RandConvolution`.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, allow_missing_keys: bool = False, **options: object
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.convolution = RandConvolution(prob=1.0, **options)  # type: ignore[arg-type]

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandConvolutiond:
        """Seed the chance of acting and the weights together."""
        super().set_random_state(seed, state)
        self.convolution.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        item = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.convolution.randomize()
            for key in self.key_iterator(item):
                item[key] = self.convolution(item[key], randomize=False)
        return item
