"""Pre-training loss (Eq. 4 of the paper), every term under its own name."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contrastive import NTXentLoss, intensity_histograms, partner_accuracy
from .dense_contrastive import DenseContrastiveLoss
from .density import DensityDivergenceLoss, sample_tokens

# what each term reads from the prediction and from the target
_INPUTS: dict[str, tuple[list[str], list[str]]] = {
    "inpainting": (["reconstruction"], ["reconstruction"]),
    "rotation": (["rotation"], ["rotation"]),
    "contrastive": (["contrastive"], []),
    "density": (["stream_i", "stream_j"], []),
    "dense": (["dense"], []),
}
# by which settings of the bundle it gets them
_HINTS = {"dense": ": set dense_size, with train::two_views::same_rotation true, or dense_weight 0"}


class PretrainingLoss(nn.Module):
    r"""Weighted sum of inpainting, rotation, contrastive, density and dense contrastive terms.

    Eq. 4 of the paper is :math:`L_{inpaint} + L_{contrast} + L_{rot} - L_{JSD}`. The sign of the density weight decides
    whether the two streams are drawn together (+1, the default, as in the bundle) or apart (-1, Eq. 4).

    Args:
        inpainting_weight: weight of the L1 distance between reconstruction and uncut sub-volume.
        rotation_weight: weight of the cross-entropy of the four rotations.
        contrastive_weight: weight of :class:`NTXentLoss`, whose ``temperature`` and ``gather_distributed`` are its own.
        density_weight: weight, with its sign, of :class:`DensityDivergenceLoss` between the two streams.
        density: settings of the density term: ``bandwidth``, ``estimator``, ``min_bandwidth``, ``num_samples``
            (default 512) and ``tokens`` (``"voxels"`` by default, see :func:`sample_tokens`).
        dense_weight: weight of :class:`DenseContrastiveLoss`, which the paper does not have; the bundle sets 1.
        dense: settings of the dense term: ``temperature`` and ``places``.
        cutout_weighting: weight of a cut-out voxel in the inpainting error, relative to a kept one. 1 is the plain
            mean over all voxels; 0 scores the kept voxels alone.

    ``forward(prediction, target)`` takes two dictionaries whose tensors hold all first views, then all second views:

    - prediction: ``"reconstruction"`` (2B, C, D, H, W), ``"rotation"`` logits (2B, 4), ``"contrastive"`` (2B, d),
      ``"stream_i"`` and ``"stream_j"`` (B, C', D', H', W'); ``"dense"``, a list of maps (2B, d', D', H', W');
    - target: ``"reconstruction"`` (2B, C, D, H, W), ``"rotation"`` int64 (2B,); ``"cutout"`` (2B, 1 or C, D, H, W),
      true where a voxel was removed, read only where ``cutout_weighting`` is not 1; ``"shown"`` (B, 1, D, H, W), where
      the dense term draws its places; optional ``"view"`` (2B, C, D, H, W), what the network saw.

    It returns a dictionary of scalars: ``"loss"``, which carries the gradient, and for each term ``"<term>"`` and
    ``"<term>_weighted"``, detached, for the log. A term of weight zero takes no part in the gradient but is logged
    all the same if its inputs are there. ``"contrastive_accuracy"`` is how often the network's embeddings find the
    other view (:func:`partner_accuracy`), ``"histogram_accuracy"`` how often a histogram of the view does.

    Raises:
        ValueError: a term of non-zero weight lacks an input, with the keys' names; shapes that do not fit each other,
            a negative ``cutout_weighting`` or weight other than the density's, unknown density settings.

    Example::

        >>> import torch
        >>> from swinfuse_components.losses import PretrainingLoss
        >>> views = torch.zeros(4, 1, 8, 8, 8)
        >>> prediction = {"reconstruction": views + 0.5, "rotation": torch.zeros(4, 4), "contrastive": torch.eye(4),
        ...               "stream_i": torch.rand(2, 6, 4, 4, 4), "stream_j": torch.rand(2, 6, 4, 4, 4)}
        >>> target = {"reconstruction": views, "rotation": torch.tensor([0, 1, 2, 3])}
        >>> terms = PretrainingLoss()(prediction, target)
        >>> round(float(terms["inpainting"]), 3), round(float(terms["rotation"]), 3)
        (0.5, 1.386)
    """

    def __init__(
        self,
        inpainting_weight: float = 1.0,
        rotation_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        density_weight: float = 1.0,
        density: Mapping[str, Any] | None = None,
        dense_weight: float = 0.0,
        dense: Mapping[str, Any] | None = None,
        cutout_weighting: float = 1.0,
        temperature: float = 0.5,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        if cutout_weighting < 0:
            raise ValueError(f"cutout_weighting must not be negative, got {cutout_weighting}")
        weights = (inpainting_weight, rotation_weight, contrastive_weight, density_weight, dense_weight)
        self.weights = dict(zip(_INPUTS, map(float, weights), strict=True))
        if not any(self.weights.values()):
            raise ValueError("all weights are 0: there is nothing to minimise")
        for name, weight in self.weights.items():
            if weight < 0 and name != "density":
                raise ValueError(f"{name}_weight is {weight:g}: only density_weight may be negative")
        self.cutout_weighting = float(cutout_weighting)
        options = dict(density or {})
        self.num_samples = int(options.pop("num_samples", 512))
        self.tokens = str(options.pop("tokens", "voxels"))
        unknown = set(options) - {"bandwidth", "estimator", "min_bandwidth"}
        if unknown:
            raise ValueError(f"density: unknown settings {sorted(unknown)}")
        self.density = DensityDivergenceLoss(**options)
        self.contrastive = NTXentLoss(temperature, gather_distributed)
        self.dense = DenseContrastiveLoss(**(dense or {}), gather_distributed=gather_distributed)

    def forward(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            missing = self._missing(name, prediction, target)
            if missing and weight:
                hint = _HINTS.get(name, "")
                raise ValueError(f"the {name} term (weight {weight:g}) needs {', '.join(missing)}{hint}")
            if not missing:
                with torch.set_grad_enabled(torch.is_grad_enabled() and weight != 0):
                    terms[name] = getattr(self, f"_{name}")(prediction, target)
        if not terms:
            raise ValueError("prediction and target hold the inputs of no term at all")
        weighted = {f"{name}_weighted": self.weights[name] * value for name, value in terms.items()}
        log = {name: value.detach() for name, value in (terms | weighted).items()}
        if "contrastive" in terms:
            log["contrastive_accuracy"] = partner_accuracy(*prediction["contrastive"].as_subclass(Tensor).chunk(2))
        if "view" in target:
            log["histogram_accuracy"] = partner_accuracy(*intensity_histograms(target["view"]).chunk(2))
        return {"loss": sum(weighted.values(), torch.zeros(())), **log}

    def bounds(self, batch_size: int) -> dict[str, float]:
        """Values at which a term says collapse or saturation, for ``batch_size`` sub-volumes on each rank."""
        batch_size *= self.contrastive.ranks
        return {"density": self.density.upper_bound, "contrastive": math.log(2 * batch_size - 1)}

    def _missing(self, name: str, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[str]:
        needed_prediction, needed_target = _INPUTS[name]
        if name == "inpainting" and self.cutout_weighting != 1:
            needed_target = [*needed_target, "cutout"]
        if name == "dense" and self.weights[name]:  # without it the views may be rotated differently
            needed_target = ["shown"]
        missing = [f"prediction[{key!r}]" for key in needed_prediction if key not in prediction]
        return missing + [f"target[{key!r}]" for key in needed_target if key not in target]

    def _inpainting(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        reconstruction, truth = _plain(prediction["reconstruction"]), _plain(target["reconstruction"])
        if reconstruction.shape != truth.shape:
            raise ValueError(
                f"reconstruction is {tuple(reconstruction.shape)}, its target {tuple(truth.shape)}: they must agree"
            )
        error = (reconstruction - truth).abs()
        if self.cutout_weighting == 1:
            return error.mean()
        cutout = _plain(target["cutout"]).to(error.dtype).expand_as(error)
        weight = 1 + (self.cutout_weighting - 1) * cutout
        return (weight * error).sum() / weight.sum().clamp_min(1.0)

    def _rotation(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(_plain(prediction["rotation"]), target["rotation"].as_subclass(Tensor).long())

    def _contrastive(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        return self.contrastive(*prediction["contrastive"].as_subclass(Tensor).chunk(2))

    def _dense(self, prediction: Mapping[str, Any], target: Mapping[str, Tensor]) -> Tensor:
        return self.dense(prediction["dense"], target.get("shown"))

    def _density(self, prediction: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        return self.density(
            *sample_tokens(prediction["stream_i"], prediction["stream_j"], self.num_samples, self.tokens)
        )


def _plain(x: Tensor) -> Tensor:
    """A bare tensor of at least single precision: the sums over a sub-volume overflow in half precision."""
    x = x.as_subclass(Tensor)
    return x if x.dtype == torch.float64 else x.float()
