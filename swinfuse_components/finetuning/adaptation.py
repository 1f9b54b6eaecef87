"""Adaptation of a network to each scan at test time, by the agreement of its answers under small affine changes."""

from __future__ import annotations

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

    Args:
        inferer: inferer that answers after the adaptation, usually a sliding window.
        roi_size: size of the patches.
        rounds: number of optimiser steps; 0 for no adaptation.
        patches: number of patches in a round.
        learning_rate: of AdamW.
        strength: standard deviation of the affine changes.
        everything: adapt all weights.
        seed: of patches and affine changes, anew for each scan.

    Raises:
        ValueError: (when called) if the network has no weights to adapt.
    """

    def __init__(
        self,
        inferer: Inferer,
        roi_size: Sequence[int],
        *,
        rounds: int = 12,
        patches: int = 2,
        learning_rate: float = 1e-3,
        strength: float = 0.05,
        everything: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inferer, self.rounds, self.patches, self.everything = inferer, rounds, patches, everything
        self.roi_size, self.learning_rate, self.strength, self.seed = tuple(roi_size), learning_rate, strength, seed

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor] | nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits (B, classes, *spatial) for ``inputs`` (B, C, *spatial)."""
        if not self.rounds:
            return self.inferer(inputs, network, *args, **kwargs)
        if not isinstance(network, nn.Module):
            raise ValueError(f"a {type(network).__name__} has no weights to adapt")
        weights = self._weights(network)
        before = [weight.detach().clone() for weight in weights]
        wanted = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
        try:
            for parameter, _ in wanted:
                parameter.requires_grad_(False)
            with torch.enable_grad():
                self._adapt(inputs, network, weights)
            return self.inferer(inputs, network, *args, **kwargs)
        finally:
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    weight.copy_(old)
            for parameter, grad in wanted:
                parameter.requires_grad_(grad)

    def _weights(self, network: nn.Module) -> list[nn.Parameter]:
        norms = [m for m in network.modules() if "Norm" in type(m).__name__]
        chosen = network.parameters() if self.everything else (p for m in norms for p in m.parameters(recurse=False))
        weights = list(chosen)
        if not weights:
            raise ValueError("the network's normalisations have no weights to adapt; set everything=True")
        return weights

    def _adapt(self, inputs: Tensor, network: nn.Module, weights: list[nn.Parameter]) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        crop = RandSpatialCrop(
            [min(n, m) for n, m in zip(self.roi_size, inputs.shape[2:], strict=True)], random_size=False
        )
        crop.set_random_state(self.seed)
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(weights, self.learning_rate)
        for _ in range(self.rounds):
            for _ in range(self.patches):
                patch = torch.stack([torch.as_tensor(crop(image)) for image in inputs.detach()])
                missing = [n - m for n, m in zip(self.roi_size, patch.shape[2:], strict=True)]
                patch = functional.pad(patch, [side for n in reversed(missing) for side in (n // 2, n - n // 2)])
                first, second = (self._answer(patch, network, generator) for _ in range(2))
                (disagreement(first, second) / self.patches).backward()
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
