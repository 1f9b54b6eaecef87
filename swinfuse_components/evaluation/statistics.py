"""Means with bootstrap intervals, paired tests and Holm's correction, by SciPy.

Holm is ours because SciPy has no correction for several tests but Benjamini and Hochberg's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 9999


class Summary(NamedTuple):
    """Mean over cases with its 95 % bootstrap interval; ``cases`` are defined of ``total``."""

    mean: float
    low: float
    high: float
    median: float
    std: float
    cases: int
    total: int


def summarize(values: ArrayLike, *, resamples: int = RESAMPLES) -> Summary:
    """Mean of per-case scores with a 95 % percentile bootstrap interval over the cases.

    Undefined scores (NaN) are left out and counted. One case, or none, has no interval: the bounds are NaN.

    Example:
        >>> summarize([0.5, 0.5, 0.5])[:3]
        (0.5, 0.5, 0.5)
    """
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    if defined.size == 0:
        return Summary(np.nan, np.nan, np.nan, np.nan, np.nan, 0, array.size)
    mean, median = float(defined.mean()), float(np.median(defined))
    if defined.size == 1:
        return Summary(mean, np.nan, np.nan, median, np.nan, 1, array.size)
    std = float(defined.std(ddof=1))
    if std == 0:  # every resample is the sample
        return Summary(mean, mean, mean, median, 0.0, defined.size, array.size)
    rng = np.random.default_rng(0)
    low, high = stats.bootstrap(
        (defined,), np.mean, n_resamples=resamples, method="percentile", rng=rng
    ).confidence_interval
    return Summary(mean, float(low), float(high), median, std, defined.size, array.size)


class PairedTest(NamedTuple):
    """Mean difference (first minus second) with its bootstrap interval, and the p value of a paired test."""

    difference: float
    low: float
    high: float
    p_value: float
    cases: int
    method: str


def paired_test(first: ArrayLike, second: ArrayLike, *, method: str = "wilcoxon") -> PairedTest:
    """Compare two models on the same cases, two-sided.

    Args:
        first: scores of one model, in the order of the cases.
        second: scores of the other model on the same cases.
        method: ``wilcoxon``, the signed-rank test with zero differences split between the ranks (``zsplit``); or
            ``permutation``, which flips the signs of the differences and asks how often their mean is as far from zero
            (all flips, or 9999 at random where there are more).

    Raises:
        ValueError: if the lengths differ or the method is unknown.

    Returns:
        the test over the cases where both scores are defined; p is 1 where all differences are zero and NaN
        where there are fewer than two cases.
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (first, second))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired scores have shapes {a.shape} and {b.shape}: expected the same cases for both")
    if method not in ("wilcoxon", "permutation"):
        raise ValueError(f"unknown paired test {method!r}: expected 'wilcoxon' or 'permutation'")
    differences = (a - b)[~np.isnan(a - b)]
    summary = summarize(differences)
    if differences.size < 2:
        p_value = float("nan")
    elif np.allclose(differences, 0, atol=1e-12):
        p_value = 1.0
    elif method == "wilcoxon":
        p_value = float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)
    else:
        p_value = float(
            stats.permutation_test(
                (differences, np.zeros_like(differences)),
                lambda x, y, axis: np.mean(x - y, axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=RESAMPLES,
                rng=np.random.default_rng(0),
            ).pvalue
        )
    return PairedTest(summary.mean, summary.low, summary.high, p_value, differences.size, method)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of several p values (step-down Bonferroni); NaN stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, float(p[i]) * (len(order) - rank)))
        adjusted[i] = running
    return [float(v) for v in adjusted]
