"""CKA is 1 for identical and rotated features and near 0 for independent ones."""

import math

import pytest
import torch

from swinfuse_components.evaluation.features import linear_cka


@pytest.fixture()
def features() -> torch.Tensor:
    return torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_for_identical_rotated_scaled_and_shifted(features: torch.Tensor) -> None:
    rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for other in (features, features @ rotation, 5 * features + 100):
        assert linear_cka(features, other) == pytest.approx(1, abs=1e-9)


def test_not_one_for_another_linear_map(features: torch.Tensor) -> None:
    assert linear_cka(features, features * torch.logspace(-2, 2, 12)) < 0.7


def test_near_zero_for_independent_features() -> None:
    g = torch.Generator().manual_seed(2)
    values = [linear_cka(torch.randn(40, 300, generator=g), torch.randn(40, 300, generator=g)) for _ in range(20)]
    assert abs(sum(values) / 20) < 0.02 and max(map(abs, values)) < 0.15


def test_many_samples_reach_the_published_biased_formula() -> None:
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = x[:, :2] + torch.randn(3000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    a, b = x - x.mean(0), y - y.mean(0)
    norm = torch.linalg.matrix_norm
    expected = norm(b.T @ a) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(float(expected), abs=5e-3)


def test_constant_features_and_mistakes(features: torch.Tensor) -> None:
    assert math.isnan(linear_cka(features, torch.ones(60, 3)))
    with pytest.raises(ValueError, match="expected"):
        linear_cka(features, features[:10])
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(features[:3], features[:3])
