"""Random contrast: new intensities for the same anatomy, so that a network learns shapes and not intensities."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy import ndimage
from torch import Tensor
from torch.nn import functional


def scale_to_unit(image: Tensor, percentiles: tuple[float, float] = (0.5, 99.5)) -> Tensor:
    """Each channel of ``image``, (C, …), scaled by its percentiles to [0, 1] and clipped; a constant one becomes 0."""
    flat = image.flatten(1).numpy()
    places = [round((flat.shape[1] - 1) * q / 100) for q in percentiles]
    ends = torch.from_numpy(np.partition(flat, places)[:, places])  # a full sort takes ten times as long
    low, high = (end.view(-1, *[1] * (image.ndim - 1)) for end in ends.unbind(1))
    return torch.where(high > low, (image - low) / (high - low), torch.zeros_like(image)).clamp(0, 1)


class RandContrast(RandomizableTransform):
    """Base of the random contrasts: acts with chance ``prob``, by handing a plain float tensor to :meth:`apply`."""

    def __init__(self, prob: float = 1.0) -> None:
        RandomizableTransform.__init__(self, prob)

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """The image (C, D, H, W) in new contrast; ``label``, (1, D, H, W), where the item has one. Draws from ``R``."""
        raise NotImplementedError

    def __call__(self, img: Tensor, label: Tensor | None = None) -> Tensor:
        """Change the contrast of ``img``, (C, D, H, W); the type and a MetaTensor's metadata are kept."""
        self.randomize(None)
        if not self._do_transform:
            return img
        image = convert_to_tensor(img, track_meta=False)
        image = image if image.is_floating_point() else image.float()
        if image.ndim != 4:
            raise ValueError(f"image of shape {tuple(image.shape)}: expected (C, D, H, W)")
        labels = None if label is None else convert_to_tensor(label, track_meta=False)
        if labels is not None and len(labels) > 1:  # overlapping regions: their partition
            labels = sum((channel > 0).float() * 2**k for k, channel in enumerate(labels))[None]
        return convert_to_dst_type(self.apply(image, labels), img)[0]


class RandContrastd(Randomizable, MapTransform):
    """Dictionary form of any :class:`RandContrast`: ``RandContrastd("image", RandConvolution(0.5))``.

    Args:
        keys: keys of the images, each (C, D, H, W) and each with a draw of its own.
        transform: the array form.
        label_key: key of the label map (1, D, H, W), or of regions that overlap (K, D, H, W), for contrasts by region;
            an item may lack it.
        allow_missing_keys: pass over keys that an item lacks.
    """

    def __init__(
        self, keys: KeysCollection, transform: RandContrast, label_key: str = "label", allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform
        self.label_key = label_key

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RandContrastd":
        """Seed the array form."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.transform(item[key], item.get(self.label_key))
        return item


class RandOneContrast(RandContrast):
    """One of several contrasts, drawn with given weights; a list among them is applied in its order.

    Args:
        transforms: contrasts, or lists of them.
        weights: relative chance of each, equal if not given.
        prob: chance of acting at the end of the warm-up.
        warmup: iterations (first, last) between which the chance grows from 0 to ``prob``: a network that has never
            seen the plain images learns them, and the shapes in them, far more slowly. ``iteration`` says the present.
    """

    def __init__(
        self,
        transforms: Sequence[RandContrast | Sequence[RandContrast]],
        weights: Sequence[float] | None = None,
        prob: float = 1.0,
        warmup: tuple[int, int] | None = None,
        iteration: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(prob)
        self.transforms = [[t] if isinstance(t, RandContrast) else list(t) for t in transforms]
        self.weights = np.asarray([1.0] * len(transforms) if weights is None else weights, dtype=float)
        if len(self.weights) != len(self.transforms) or not self.transforms or (self.weights < 0).any():
            raise ValueError(f"weights={self.weights.tolist()}: expected one, not negative, for each transform")
        if warmup is not None and (iteration is None or not 0 <= warmup[0] <= warmup[1]):
            raise ValueError(f"warmup={warmup}: expected two increasing iterations, and `iteration`")
        self.highest, self.warmup, self.iteration = prob, warmup, iteration

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandOneContrast":
        """Seed the choice and every contrast."""
        super().set_random_state(seed, state)
        for transform in (t for chain in self.transforms for t in chain):
            transform.set_random_state(state=self.R)
        return self

    def randomize(self, data: object = None) -> None:
        """Draw whether to act, with the chance of this iteration."""
        if self.warmup is not None and self.iteration is not None:
            first, last = self.warmup
            self.prob = self.highest * float(np.clip((self.iteration() - first) / max(last - first, 1), 0, 1))
        super().randomize(None)

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """One of the transforms, or one of the chains."""
        for transform in self.transforms[self.R.choice(len(self.transforms), p=self.weights / self.weights.sum())]:
            image = transform(image, label)
        return image


class RandConvolution(RandContrast):
    """Global intensity non-linear augmentation (GIN): the image blended with the output of a random network.

    Ouyang et al., "Causality-inspired single-source domain generalization for medical image segmentation", IEEE TMI
    2023, section III-A: convolutions with a kernel size drawn for each, leaky ReLU (0.01) between them, weights and
    biases N(0, 1); alpha ~ U(0, 1); alpha * net(x) + (1 - alpha) * x of the standardised image, scaled to its Frobenius
    norm. The network's output is not rescaled before the blend, so that for most alphas it dominates. Every channel
    goes through the same draw by itself.

    Args:
        layers, hidden_channels: number of convolutions, and width of the network.
        kernel_sizes: odd sizes, one of which is drawn for each layer.
        rescale: scale the network's output to the image's norm before the blend, a weaker change than published.
        unit: standardise the image first and return it in [0, 1] (:func:`scale_to_unit`), for images scaled to [0, 1];
            False takes and returns standardised images, as published.

    Raises:
        ValueError: on settings out of range.
    """

    def __init__(
        self,
        prob: float = 1.0,
        *,
        layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        rescale: bool = False,
        unit: bool = True,
    ) -> None:
        super().__init__(prob)
        if layers < 1 or hidden_channels < 1 or not kernel_sizes or any(k < 1 or k % 2 == 0 for k in kernel_sizes):
            raise ValueError(
                f"layers={layers}, hidden_channels={hidden_channels}, kernel_sizes={list(kernel_sizes)}: "
                "expected at least 1, and odd kernel sizes"
            )
        self.widths = [1] + [hidden_channels] * (layers - 1) + [1]
        self.kernel_sizes = tuple(kernel_sizes)
        self.rescale, self.unit = rescale, unit

    def draw(self) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
        """The blend alpha, and the kernel (out, in, k, k, k) and bias (out,) of each layer."""
        alpha, layers = self.R.uniform(), []
        for width_in, width_out in zip(self.widths[:-1], self.widths[1:], strict=True):
            size = self.kernel_sizes[self.R.randint(len(self.kernel_sizes))]
            layers.append((self.R.normal(size=(width_out, width_in, *[size] * 3)), self.R.normal(size=width_out)))
        return alpha, layers

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Blend the image with the output of a random network."""
        alpha, layers = self.draw()
        axes = (1, 2, 3)
        if self.unit:
            image = (image - image.mean(axes, keepdim=True)) / image.std(axes, keepdim=True).clamp_min(1e-6)
        features = image[:, None]  # channels take the place of the batch
        for number, (kernel, bias) in enumerate(layers):
            features = functional.leaky_relu(features) if number else features
            weight, offset = (torch.as_tensor(values, dtype=image.dtype) for values in (kernel, bias))
            features = functional.conv3d(features, weight, offset, padding=kernel.shape[-1] // 2)

        def to_norm_of_image(other: Tensor) -> Tensor:
            norm, wanted = (x.square().sum(axes, keepdim=True).sqrt() for x in (other, image))
            return other * wanted / norm.clamp_min(1e-8)

        convolved = to_norm_of_image(features[:, 0]) if self.rescale else features[:, 0]
        mixed = to_norm_of_image(alpha * convolved + (1 - alpha) * image)
        return scale_to_unit(mixed) if self.unit else mixed


class RandSpatialBlend(RandContrast):
    """Interventional pseudo-correlation augmentation (IPA): two draws of a contrast, blended by a smooth random field.

    Ouyang et al., IEEE TMI 2023, section III-B: g1 m + g2 (1 - m), with m in [0, 1] a cubic B-spline through random
    control points, so that two places of one image differ in contrast.

    ``transform`` is the contrast that is drawn twice, ``control_points`` their number along each axis.
    """

    def __init__(self, transform: RandContrast, control_points: int = 5, prob: float = 1.0) -> None:
        super().__init__(prob)
        self.transform = transform
        self.control_points = control_points

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> "RandSpatialBlend":
        """Seed the field and the contrast."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def draw_field(self, shape: Sequence[int]) -> np.ndarray:
        """A smooth field of the spatial ``shape``, from 0 to 1."""
        control = self.R.normal(size=[self.control_points] * len(shape))
        field = ndimage.zoom(control, [n / self.control_points for n in shape], order=3, grid_mode=True, mode="nearest")
        return (field - field.min()) / max(field.max() - field.min(), 1e-8)

    def apply(self, image: Tensor, label: Tensor | None) -> Tensor:
        """Two draws, blended."""
        field = torch.as_tensor(self.draw_field(image.shape[1:]), dtype=image.dtype)
        return field * self.transform(image, label) + (1 - field) * self.transform(image, label)
