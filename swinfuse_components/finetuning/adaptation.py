"""Adaptation of a network to each scan at test time, by the agreement of its answers under small affine changes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import RandSpatialCrop
from torch import Tensor, nn
from torch.nn import functional


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """DG-TTA's consistency loss of two probability maps (B, classes, *spatial): 1 - mean 2ab / (0.5 (a + b)^2).

    Sums run over the voxels, the mean over batch and classes; 0 where the maps are equal.
    """
    spatial = tuple(range(2, first.ndim))
    both = 2 * (first * second).sum(spatial)
    squares = 0.5 * (first + second).square().sum(spatial)
    return 1 - (both / squares.clamp_min(1e-8)).mean()


class AdaptingInferer(Inferer):
    """Adapt the network's normalisations to a scan, hand the scan to another inferer, and put the weights back.

    Weihsbach et al., "DG-TTA: Out-of-domain medical image segmentation through augmentation and descriptor-driven
    domain generalization and test-time adaptation" (2023). Each round draws patches of the scan; the network segments
    two random affine copies of each (identity + 0.05 N(0, 1)), the answers are warped back, and AdamW lowers their
    :func:`disagreement`. No label is used, and every scan starts from the trained weights. The publication adapts all
    weights at a rate of 1e-5; here the scales and shifts of the normalisations alone learn, at a higher rate, which
    needs less memory and cannot forget much.

    ``inferer`` answers after the adaptation, usually a sliding window; patches are of ``roi_size``, two in each of the
    ``rounds`` (0: no adaptation); ``strength`` is the standard deviation of the affine changes.

    Raises:
        ValueError: (when called) if the network's normalisations have no weights.
    """

    def __init__(
        self,
        inferer: Inferer,
        roi_size: Sequence[int],
        *,
        rounds: int = 12,
        learning_rate: float = 1e-3,
        strength: float = 0.05,
    ) -> None:
        super().__init__()
        self.inferer, self.roi_size, self.rounds = inferer, tuple(roi_size), rounds
        self.learning_rate, self.strength = learning_rate, strength

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor] | nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits (B, classes, *spatial) for ``inputs`` (B, C, *spatial)."""
        if not self.rounds:
            return self.inferer(inputs, network, *args, **kwargs)
        modules = network.modules() if isinstance(network, nn.Module) else ()
        norms = [module for module in modules if "Norm" in type(module).__name__]
        weights = [weight for module in norms for weight in module.parameters(recurse=False)]
        if not isinstance(network, nn.Module) or not weights:
            raise ValueError("the network's normalisations have no weights to adapt")
        before = [weight.detach().clone() for weight in weights]
        wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        try:
            network.requires_grad_(False)
            with torch.enable_grad():
                self._adapt(inputs, network, weights)
            return self.inferer(inputs, network, *args, **kwargs)
        finally:
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    weight.copy_(old)
            for parameter, grad in wanted:
                parameter.requires_grad_(grad)

    def _adapt(self, inputs: Tensor, network: nn.Module, weights: list[nn.Parameter]) -> None:
        generator = torch.Generator().manual_seed(0)
        size = [min(n, m) for n, m in zip(self.roi_size, inputs.shape[2:], strict=True)]
        crop = RandSpatialCrop(size, random_size=False).set_random_state(0)
        missing = [n - m for n, m in zip(self.roi_size, size, strict=True)]
        sides = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(weights, self.learning_rate)
        for _ in range(self.rounds):
            for _ in range(2):
                patch = torch.stack([torch.as_tensor(crop(image)) for image in inputs.detach()])
                first, second = (self._answer(functional.pad(patch, sides), network, generator) for _ in range(2))
                (disagreement(first, second) / 2).backward()
            optimizer.step()
            optimizer.zero_grad()

    def _answer(self, patch: Tensor, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Probabilities of an affine copy of the patch, warped back."""
        change = torch.eye(4)
        change[:3] += self.strength * torch.randn(3, 4, generator=generator)
        logits = network(_warp(patch, change)).float()
        probabilities = logits.softmax(1) if logits.shape[1] > 1 else logits.sigmoid()
        return _warp(probabilities, torch.linalg.inv(change))


def _warp(image: Tensor, matrix: Tensor) -> Tensor:
    theta = matrix[:3].to(image).expand(len(image), 3, 4)
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
