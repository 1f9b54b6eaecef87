"""How alike two sets of features are: linear centred kernel alignment (CKA).

Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, and for the unbiased
estimate Song et al., "Feature Selection via Dependence Maximization", JMLR 2012.
"""

from __future__ import annotations

import torch


def _unbiased_hsic(gram_x: torch.Tensor, gram_y: torch.Tensor) -> torch.Tensor:
    n = gram_x.shape[0]
    gx, gy = (g - torch.diag(torch.diagonal(g)) for g in (gram_x, gram_y))
    trace = (gx * gy).sum()
    product = gx.sum() * gy.sum() / ((n - 1) * (n - 2))
    cross = 2 * (gx.sum(0) * gy.sum(0)).sum() / (n - 2)
    return (trace + product - cross) / (n * (n - 3))


def linear_cka(x: torch.Tensor, y: torch.Tensor, *, unbiased: bool = True) -> float:
    """Linear CKA between two sets of features of the same samples.

    Args:
        x: features of shape (N, d1), row n belongs to sample n.
        y: features of shape (N, d2), the same samples in the same order.
        unbiased: take the unbiased estimate of HSIC. The usual biased one grows towards 1 when features are many and
            samples few, for independent features too: use it only to compare with published figures.

    Returns:
        1 for features equal up to rotation, shift and one scale; about 0 for independent ones (the unbiased estimate
        may fall a little below 0). NaN if one of them is constant.

    Raises:
        ValueError: if the number of samples differs, or is too small (4 for the unbiased estimate, 2 for the other).

    Example:
        >>> features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        >>> round(linear_cka(features, 3 * features + 1), 6)
        1.0
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ValueError(f"features have shapes {tuple(x.shape)} and {tuple(y.shape)}: expected (N, d1) and (N, d2)")
    least = 4 if unbiased else 2
    if x.shape[0] < least:
        raise ValueError(f"CKA of {x.shape[0]} samples: expected at least {least}")
    # centring in float64 first: a common offset would otherwise swamp the differences
    x, y = (f.detach().cpu().double() - f.detach().cpu().double().mean(0) for f in (x, y))
    gram_x, gram_y = x @ x.T, y @ y.T
    if unbiased:
        xy, xx, yy = (_unbiased_hsic(a, b) for a, b in ((gram_x, gram_y), (gram_x, gram_x), (gram_y, gram_y)))
    else:
        xy, xx, yy = ((a * b).sum() for a, b in ((gram_x, gram_y), (gram_x, gram_x), (gram_y, gram_y)))
    if xx <= 0 or yy <= 0:
        return float("nan")
    return float(xy / torch.sqrt(xx * yy))
