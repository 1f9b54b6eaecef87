"""Density matching between the two streams of the domain-invariance module (Eq. 2 and 3 of the paper)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BANDWIDTH_RULES = ("spread", "paper")
ESTIMATORS = ("entropy", "kl")
TOKENS = ("voxels", "planes")


class DensityDivergenceLoss(nn.Module):
    r"""Jensen-Shannon divergence of two samples, each seen through a Gaussian kernel density estimate.

    Eq. 2 estimates a density from points :math:`X_1 \ldots X_N` as
    :math:`p(X) = \frac{1}{N} \sum_n K(\|X - X_n\|_2 / \sigma)` with a Gaussian :math:`K`; Eq. 3 compares two such
    densities by :math:`\mathrm{JSD} = \frac{1}{2} (\mathrm{KL}[p_1, M] + \mathrm{KL}[p_2, M])` with :math:`M` their
    average. Both estimators need only :math:`\log p_1 - \log p_2`, in which the kernel's normaliser cancels.

    One bandwidth serves both densities. It is computed within each sample, averaged over the two, kept out of the
    gradient and clamped from below: a bandwidth over the pooled points would vanish when the streams agree.

    Each point is left out of both densities where they are evaluated at it: row ``n`` of ``x`` meets neither row
    ``n`` of ``x`` nor row ``n`` of ``y``. Leaving it out of its own density alone would give ln 2 for identical
    samples. Rows of the same index should therefore be the same place in both streams, as :func:`sample_tokens`
    draws them.

    Args:
        bandwidth: the rule for the kernel's width h. ``"paper"``: mean distance to the nearest neighbour.
            ``"spread"``: 2 h^2 is the standard deviation of the squared distances. docs/method.md compares them.
        estimator: ``"entropy"``: ln 2 minus the binary entropy of p1 / (p1 + p2), averaged over the pooled points; it
            lies in [0, ln 2]. ``"kl"``: Eq. 3 with each expectation over the points of its own sample; at most ln 2,
            without a lower bound, so that it suits the sign of Eq. 4, which maximises it.
        min_bandwidth: lower limit of h, in the units of the samples. It bounds the gradient when samples collapse.

    Shape:
        x is (N, d), y is (M, d), both with at least two rows; the result is a scalar in nats. Lower precisions are
        raised to float32, also under autocast; float64 stays.

    Raises:
        ValueError: unknown rule or estimator, ``min_bandwidth`` not positive, samples of wrong shape or with fewer
            than two rows.

    Example::

        >>> import torch
        >>> from swinfuse_components.losses import DensityDivergenceLoss
        >>> x = torch.randn(512, 48, generator=torch.Generator().manual_seed(0))
        >>> loss = DensityDivergenceLoss()
        >>> float(loss(x, x))
        0.0
        >>> bool(0.6 < loss(x, x + 2) < 0.6932)
        True
    """

    #: largest value the loss can take, in nats
    upper_bound = math.log(2)

    def __init__(self, bandwidth: str = "spread", *, estimator: str = "entropy", min_bandwidth: float = 1e-3) -> None:
        super().__init__()
        if bandwidth not in BANDWIDTH_RULES:
            raise ValueError(f"bandwidth must be one of {BANDWIDTH_RULES}, got {bandwidth!r}")
        if estimator not in ESTIMATORS:
            raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
        if not min_bandwidth > 0:
            raise ValueError(f"min_bandwidth must be positive, got {min_bandwidth}")
        self.bandwidth = bandwidth
        self.estimator = estimator
        self.min_bandwidth = float(min_bandwidth)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        at_x, at_y = self.log_ratios(x, y)
        if self.estimator == "kl":  # log (p / M) = ln 2 + log sigmoid(log p - log q)
            return self.upper_bound + 0.5 * (F.logsigmoid(at_x).mean() + F.logsigmoid(-at_y).mean())
        entropy = 0.5 * (_binary_entropy(at_x).mean() + _binary_entropy(at_y).mean())
        # rounding alone may leave the interval, by 1e-7
        return (self.upper_bound - entropy).clamp(0.0, self.upper_bound)

    def log_ratios(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """log p - log q at the rows of ``x``, shape (N,), and at the rows of ``y``, shape (M,)."""
        _check_samples(x, y)
        with torch.autocast(x.device.type, enabled=False):
            x, y = _at_least_float32(x), _at_least_float32(y)
            mean_x, mean_y = x.mean(0), y.mean(0)
            mean = 0.5 * (mean_x + mean_y)
            # Beyond one, the unit is the farthest coordinate: squares of large numbers would leave float32.
            farthest = torch.maximum((x - mean).detach().abs().max(), (y - mean).detach().abs().max())
            unit = farthest.clamp_min(1.0)
            from_x, from_y = (x - mean) / unit, (y - mean) / unit
            # not one the transpose of the other, so that identical samples give the very numbers of one sample
            across_x, across_y = _squared_distances(from_x, from_y), _squared_distances(from_y, from_x)
            # Distances within a sample are taken around its own mean: around the pooled mean they would drown in
            # rounding as soon as the two samples are far apart.
            x, y = (x - mean_x) / unit, (y - mean_y) / unit
            within_x, within_y = _squared_distances(x, x), _squared_distances(y, y)

            squared_bandwidth = self._squared_bandwidth(within_x.detach(), within_y.detach())
            exponent = 2.0 * torch.maximum(squared_bandwidth, (self.min_bandwidth / unit).square().clamp_min(1e-30))
            own_x, own_y = _log_density(within_x / exponent), _log_density(within_y / exponent)
            other_x, other_y = _log_density(across_x / exponent), _log_density(across_y / exponent)
            return own_x - other_x, other_y - own_y

    def _squared_bandwidth(self, within_x: Tensor, within_y: Tensor) -> Tensor:
        """The shared h^2 of the two samples, from their squared distances (N, N) and (M, M)."""
        if self.bandwidth == "paper":
            nearest = [_without_diagonal(d).min(dim=1).values.sqrt().mean() for d in (within_x, within_y)]
            return (0.5 * (nearest[0] + nearest[1])).square()
        spread = [_without_diagonal(d).std(correction=0) for d in (within_x, within_y)]
        return 0.25 * (spread[0] + spread[1])


def sample_tokens(
    stream_i: Tensor,
    stream_j: Tensor,
    num_samples: int = 512,
    tokens: str = "voxels",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw points of the feature space for the density loss, at the same places of both streams (B, C, D, H, W).

    ``num_samples`` points are drawn without repetition from the whole batch (all of them where there are fewer); the
    loss costs its square, so that 512 to 1000 are sensible. ``tokens="voxels"`` gives points of dimension C,
    ``"planes"`` points of dimension H * W, one for each channel and depth, the tokens of the paper's attention. The
    ``generator`` is on the CPU. Returns two tensors (num_samples, C or H * W), rows of one index from the same place.

    Raises:
        ValueError: shapes differ or are not 5D, unknown ``tokens``, fewer than two points asked for.
    """
    if stream_i.shape != stream_j.shape or stream_i.ndim != 5:
        raise ValueError(
            f"both streams must have one shape (B, C, D, H, W), got {tuple(stream_i.shape)} and {tuple(stream_j.shape)}"
        )
    if tokens not in TOKENS:
        raise ValueError(f"tokens must be one of {TOKENS}, got {tokens!r}")
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    batch, channels, depth, height, width = stream_i.shape
    places = depth * height * width if tokens == "voxels" else channels * depth
    chosen = torch.randperm(batch * places, generator=generator)[:num_samples].to(stream_i.device)
    item, place = chosen // places, chosen % places
    if tokens == "voxels":
        return stream_i.flatten(2)[item, :, place], stream_j.flatten(2)[item, :, place]
    plane_shape = (batch, places, height * width)
    return stream_i.reshape(plane_shape)[item, place], stream_j.reshape(plane_shape)[item, place]


def _check_samples(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"samples must be (N, d) and (M, d), got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"each sample needs at least two points, got {len(x)} and {len(y)}")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) squared Euclidean distances of centred points; no square root, whose gradient is infinite at zero."""
    return (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2.0 * (x @ y.T)).clamp_min(0.0)


def _without_diagonal(matrix: Tensor) -> Tensor:
    """(N, N) to (N, N - 1): the pairs of different points."""
    n = len(matrix)
    return matrix.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def _log_density(scaled: Tensor) -> Tensor:
    """Log of the mean kernel for each row, the partner on the diagonal left out; constants that cancel are dropped."""
    rows, columns = scaled.shape
    diagonal = torch.eye(rows, columns, dtype=torch.bool, device=scaled.device)
    counted = columns - diagonal.sum(1)
    return torch.logsumexp(-scaled.masked_fill(diagonal, math.inf), dim=1) - counted.to(scaled.dtype).log()


def _binary_entropy(logit: Tensor) -> Tensor:
    """Entropy in nats of sigmoid(logit), without cancellation for large logits."""
    magnitude = logit.abs()
    return F.softplus(-magnitude) + magnitude * torch.sigmoid(-magnitude)
