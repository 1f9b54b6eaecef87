"""Means with bootstrap intervals, paired tests and Holm's correction, by SciPy.

Holm is ours because SciPy has no correction for several tests but Benjamini and Hochberg's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 9999


class Summary(NamedTuple):
    """Mean over the defined cases with its 95 % bootstrap interval, their median, deviation and number."""

    mean: float
    low: float
    high: float
    median: float
    std: float
    cases: int


def summarize(values: ArrayLike, *, resamples: int = RESAMPLES) -> Summary:
    """Mean of the defined per-case scores with a 95 % percentile bootstrap interval over the cases, NaN below two.

    Example:
        >>> summarize([0.5, 0.5, 0.5])[:3]
        (0.5, 0.5, 0.5)
    """
    defined = pd.Series(values, dtype=float).dropna()
    low = high = np.nan
    if len(defined) > 1:
        options = {"n_resamples": resamples, "method": "percentile", "rng": np.random.default_rng(0)}
        low, high = stats.bootstrap((defined.to_numpy(),), np.mean, **options).confidence_interval
    mean, median, std = map(float, (defined.mean(), defined.median(), defined.std()))
    return Summary(mean, float(low), float(high), median, std, len(defined))


class PairedTest(NamedTuple):
    """Mean difference (first minus second) with its bootstrap interval, and the p value of a paired test."""

    difference: float
    low: float
    high: float
    p_value: float
    cases: int
    method: str


def paired_test(first: ArrayLike, second: ArrayLike, *, method: str = "wilcoxon") -> PairedTest:
    """Compare two models by their scores on the same cases, two-sided, where both scores are defined.

    ``method`` is ``wilcoxon``, the signed-rank test with zero differences split between the ranks (``zsplit``), or
    ``permutation``, which flips the signs of the differences and asks how often their mean is as far from zero (all
    flips, or 9999 at random where there are more). p is 1 where all differences are zero and NaN below two cases.
    ValueError if the lengths differ or the method is unknown.
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"paired scores have shapes {a.shape} and {b.shape}: expected the same cases for both")
    if method not in ("wilcoxon", "permutation"):
        raise ValueError(f"unknown paired test {method!r}: expected 'wilcoxon' or 'permutation'")
    differences = (a - b)[~np.isnan(a - b)]
    summary = summarize(differences)
    if len(differences) < 2:
        p_value = np.nan
    elif np.allclose(differences, 0, atol=1e-12):
        p_value = 1.0
    elif method == "wilcoxon":
        p_value = float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)
    else:
        options = {"permutation_type": "samples", "n_resamples": RESAMPLES, "rng": np.random.default_rng(0)}
        p_value = float(stats.permutation_test((differences,), np.mean, **options).pvalue)
    return PairedTest(*summary[:3], p_value, len(differences), method)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of several p values (step-down Bonferroni); NaN stays NaN and does not count.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    p = pd.Series(p_values, dtype=float)
    ordered = p.dropna().sort_values()
    adjusted = (ordered * np.arange(len(ordered), 0, -1)).clip(upper=1).cummax()
    return adjusted.reindex(p.index).tolist()
