"""CKA is 1 for identical and rotated features and near 0 for independent ones."""

import math

import pytest
import torch

from swinfuse_components.evaluation.similarity import linear_cka


@pytest.fixture()
def features() -> torch.Tensor:
    return torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("unbiased", [True, False])
def test_one_for_identical_rotated_scaled_and_shifted(features: torch.Tensor, unbiased: bool) -> None:
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for other in (features, features @ rotation, 5 * features + 100):
        assert linear_cka(features, other, unbiased=unbiased) == pytest.approx(1, abs=1e-9)


def test_not_one_for_another_linear_map(features: torch.Tensor) -> None:
    assert linear_cka(features, features * torch.logspace(-2, 2, 12)) < 0.7


def test_near_zero_for_independent_features() -> None:
    g = torch.Generator().manual_seed(2)
    values = [linear_cka(torch.randn(40, 300, generator=g), torch.randn(40, 300, generator=g)) for _ in range(20)]
    assert abs(sum(values) / 20) < 0.02 and max(map(abs, values)) < 0.15
    # the reason for the unbiased estimate: the usual one calls the same features alike
    biased = linear_cka(torch.randn(40, 300, generator=g), torch.randn(40, 300, generator=g), unbiased=False)
    assert biased > 0.8


def test_biased_is_the_published_formula(features: torch.Tensor) -> None:
    other = features[:, :5] + torch.randn(60, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x, y = features - features.mean(0), other - other.mean(0)
    norm = torch.linalg.matrix_norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert linear_cka(features, other, unbiased=False) == pytest.approx(float(expected))


def test_constant_features_and_mistakes(features: torch.Tensor) -> None:
    assert math.isnan(linear_cka(features, torch.ones(60, 3)))
    with pytest.raises(ValueError, match="expected"):
        linear_cka(features, features[:10])
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(features[:3], features[:3])
