"""Intervals and tests against SciPy and closed forms."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from swinfuse_components.evaluation.statistics import holm, paired_test, summarize


def test_mean_and_interval_match_the_normal_theory() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 200)
    summary = summarize(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.low == pytest.approx(values.mean() - half, abs=0.003)
    assert summary.high == pytest.approx(values.mean() + half, abs=0.003)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        s = summarize(rng.beta(4, 2, 25), resamples=499)
        hits += s.low <= 4 / 6 <= s.high
    assert 0.88 <= hits / 200 <= 0.98


def test_undefined_scores_are_left_out_and_counted() -> None:
    summary = summarize([0.2, math.nan, 0.4])
    assert (summary.mean, summary.cases) == (pytest.approx(0.3), 2)
    assert summarize([]).cases == 0 and math.isnan(summarize([]).mean)
    assert math.isnan(summarize([0.7]).low) and summarize([0.7]).mean == 0.7
    assert summarize([0.5, 0.5])[1:3] == (0.5, 0.5)


def test_wilcoxon_is_scipys() -> None:
    rng = np.random.default_rng(2)
    a = rng.uniform(size=20)
    b = a + rng.normal(0.05, 0.1, 20)
    result = paired_test(a, b)
    assert result.p_value == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert result.difference == pytest.approx((a - b).mean())


def test_permutation_counts_every_sign_flip() -> None:
    a = np.array([0.9, 0.8, 0.7, 0.65, 0.3])
    b = np.array([0.5, 0.6, 0.75, 0.4, 0.2])
    d = a - b
    means = [abs(np.mean(d * signs)) for signs in itertools.product([1, -1], repeat=5)]
    exact = np.mean(np.array(means) >= abs(d.mean()) - 1e-12)
    assert paired_test(a, b, method="permutation").p_value == pytest.approx(exact)


def test_equal_models_and_single_cases() -> None:
    assert paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).p_value == 1
    assert math.isnan(paired_test([0.1], [0.4]).p_value)
    with pytest.raises(ValueError, match="same cases"):
        paired_test([0.1, 0.2], [0.1])
    with pytest.raises(ValueError, match="'wilcoxon' or 'permutation'"):
        paired_test([0.1], [0.2], method="t")


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    corrected = holm([0.01, math.nan])
    assert corrected[0] == pytest.approx(0.01) and math.isnan(corrected[1])
