"""The density divergence against a slow float64 reference, its properties, and the table of docs/method.md."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swinfuse_components.losses import DensityDivergenceLoss, sample_tokens

LN2 = math.log(2)
RULES = ("paper", "spread")
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 24)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(x: Tensor, y: Tensor, rule: str, estimator: str) -> float:
    """Eq. 2 and 3 in plain float64: densities, not their logarithms; loops, no shared code."""

    def squared(a: Tensor, b: Tensor) -> float:
        return float(((a - b) ** 2).sum())

    def bandwidth(points: Tensor) -> float:
        pairs = [[squared(a, b) for j, b in enumerate(points) if i != j] for i, a in enumerate(points)]
        if rule == "paper":
            return sum(math.sqrt(min(row)) for row in pairs) / len(points)
        flat = torch.tensor([value for row in pairs for value in row], dtype=torch.float64)
        return float(flat.std(correction=0)) / 2

    mean = (bandwidth(x) + bandwidth(y)) / 2
    squared_bandwidth = mean**2 if rule == "paper" else mean

    def density(at: Tensor, left_out: int, points: Tensor) -> float:
        others = [point for index, point in enumerate(points) if index != left_out]
        return sum(math.exp(-squared(at, point) / (2 * squared_bandwidth)) for point in others) / len(others)

    divergence = 0.0
    for own, other in ((x, y), (y, x)):
        for index, point in enumerate(own):
            p, q = density(point, index, own), density(point, index, other)
            middle = (p + q) / 2
            if estimator == "kl":  # half of KL[p, M], the mean taken over the points of p
                divergence += 0.5 * math.log(p / middle) / len(own)
            else:  # E_M[(p / M) ln(p / M)] is KL[p, M]; half of it for each density, half of M for each sample
                divergence += sum(0.25 * part / middle * math.log(part / middle) for part in (p, q)) / len(own)
    return divergence


@pytest.mark.parametrize("estimator", ["entropy", "kl"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("n", "m", "d", "shift"), [(12, 12, 3, 0.0), (10, 14, 2, 0.7), (15, 9, 6, 1.5)])
def test_equals_the_formula_in_float64(rule: str, estimator: str, n: int, m: int, d: int, shift: float) -> None:
    x, y = draw(1, n, d, dtype=torch.float64), draw(2, m, d, dtype=torch.float64) + shift
    found = float(DensityDivergenceLoss(rule, estimator=estimator)(x, y))
    assert found == pytest.approx(reference(x, y, rule, estimator), abs=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_float32_agrees_with_float64_far_from_the_origin(rule: str) -> None:
    x, y = draw(1, 200, 48, dtype=torch.float64) + 100, draw(2, 200, 48, dtype=torch.float64) + 100.7
    loss = DensityDivergenceLoss(rule)
    assert float(loss(x.float(), y.float())) == pytest.approx(float(loss(x, y)), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("estimator", ["entropy", "kl"])
@pytest.mark.parametrize("rule", RULES)
def test_gradient_is_that_of_finite_differences(rule: str, estimator: str) -> None:
    """The bandwidth has no gradient, so it is held fixed: by samples whose rule falls below the lower limit."""
    loss = DensityDivergenceLoss(rule, estimator=estimator, min_bandwidth=3.0)
    x, y = draw(1, 6, 3, dtype=torch.float64), draw(2, 5, 3, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y.requires_grad_()))


# The measurements quoted in docs/method.md: unit normal clouds of 512 points, shifted by delta in every dimension:
# dimensions, delta, true divergence, and what each rule with each estimator gives, in the order of SETTINGS.
SETTINGS = [("paper", "entropy"), ("paper", "kl"), ("spread", "entropy"), ("spread", "kl")]
TABLE = [
    (48, 0.0, 0.0, 0.000, 0.000, 0.000, -0.003),
    (48, 0.5, 0.586, 0.002, 0.056, 0.049, 0.233),
    (48, 1.0, 0.692, 0.028, 0.202, 0.368, 0.576),
    (48, 2.0, 0.693, 0.290, 0.540, 0.691, 0.693),
    (2304, 0.0, 0.0, 0.000, 0.000, 0.000, -0.001),
    (2304, 0.5, 0.693, 0.001, 0.033, 0.614, 0.677),
    (2304, 1.0, 0.693, 0.009, 0.126, 0.693, 0.693),
    (2304, 2.0, 0.693, 0.127, 0.401, 0.693, 0.693),
]


@pytest.mark.parametrize("row", TABLE)
def test_table_of_measurements(row: tuple) -> None:
    d, delta, _, *expected = row
    x, y = draw(0, 512, d), draw(1, 512, d) + delta
    found = [float(DensityDivergenceLoss(rule, estimator=estimator)(x, y)) for rule, estimator in SETTINGS]
    assert found == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(("d", "delta", "truth"), [row[:3] for row in TABLE])
def test_truth_of_the_table(d: int, delta: float, truth: float) -> None:
    """The log-ratio of the two normals is itself normal, so the true divergence is an integral over one variable."""
    from scipy.integrate import quad
    from scipy.stats import norm

    distance = delta * math.sqrt(d)  # of the two means, along which alone the clouds differ
    if distance == 0:
        exact = 0.0
    else:
        entropy = lambda t: float(torch.nn.functional.softplus(torch.tensor(-t, dtype=torch.float64)))  # noqa: E731
        mean = distance**2 / 2
        integrand = lambda t: norm.pdf(t, mean, distance) * entropy(t)  # noqa: E731
        exact = LN2 - quad(integrand, mean - 12 * distance, mean + 12 * distance, limit=400)[0]
    assert exact == pytest.approx(truth, abs=0.001)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=SIZES, m=SIZES, d=st.integers(1, 60), rule=st.sampled_from(RULES), scale=st.floats(1e-3, 1e3))
def test_bounded_and_symmetric(seed: int, n: int, m: int, d: int, rule: str, scale: float) -> None:
    loss = DensityDivergenceLoss(rule)
    x, y = scale * draw(seed, n, d), scale * (draw(seed + 1, m, d) + 0.3)
    value = float(loss(x, y))
    assert 0 <= value <= LN2 + 1e-7
    assert float(loss(y, x)) == pytest.approx(value, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=SIZES, d=st.integers(1, 60), rule=st.sampled_from(RULES), shift=st.floats(-1e3, 1e3))
def test_zero_on_identical_samples(seed: int, n: int, d: int, rule: str, shift: float) -> None:
    x = draw(seed, n, d) + shift
    assert float(DensityDivergenceLoss(rule)(x, x.clone())) < 1e-6


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), d=st.sampled_from([2, 8, 48]), rule=st.sampled_from(RULES))
def test_grows_with_the_separation_of_gaussian_clouds(seed: int, d: int, rule: str) -> None:
    loss = DensityDivergenceLoss(rule)
    x, y = draw(seed, 200, d), draw(seed + 1, 200, d)
    values = [float(loss(x, y + step / math.sqrt(d))) for step in (0.0, 2.0, 4.0, 8.0, 16.0)]
    assert all(after >= before - 5e-3 for before, after in zip(values, values[1:], strict=False))
    assert values[-1] > values[0] + 0.01


DEGENERATE = {
    "equal": lambda x: (x, x.clone()),
    "near-equal": lambda x: (x, x + 1e-6 * x.flip(0)),
    "duplicated": lambda x: (x[:2].repeat(len(x) // 2, 1), x[1:3].repeat(len(x) // 2, 1)),
    "far": lambda x: (x, x.flip(0) + 1e6),
    "very far": lambda x: (x, x.flip(0) * 1e12 + 1e25),
    "constant": lambda x: (torch.ones_like(x), torch.ones_like(x)),
    "constant and apart": lambda x: (torch.zeros_like(x), torch.full_like(x, 1e4)),
    "constant and spread": lambda x: (torch.zeros_like(x), x),
    "one outlier": lambda x: (x, torch.cat([x[:-1], x[-1:] + 1e5])),
    "tiny": lambda x: (1e-20 * x, 1e-20 * x.flip(0)),
}


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(2, 10),
    d=st.integers(1, 60),
    rule=st.sampled_from(RULES),
    kind=st.sampled_from(list(DEGENERATE)),
    mixed=st.booleans(),
)
def test_finite_gradients_always(seed: int, n: int, d: int, rule: str, kind: str, mixed: bool) -> None:
    x, y = DEGENERATE[kind](draw(seed, 2 * n, d))
    if mixed and kind not in ("constant and apart", "tiny"):
        x, y = x.bfloat16(), y.bfloat16()
    x, y = x.requires_grad_(), y.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        value = DensityDivergenceLoss(rule)(x, y)
    assert value.dtype == torch.float32
    assert 0 <= value.item() <= LN2 + 1e-7
    for gradient in torch.autograd.grad(value, (x, y)):
        assert torch.isfinite(gradient).all()
        # the smallest bandwidth is 1e-3, and the loss moves by at most ln 2 per point over about one bandwidth
        assert float(gradient.abs().max()) < 1e4


def test_kl_estimator_is_closer_to_the_truth_bounded_above_and_not_below() -> None:
    loss, kl = DensityDivergenceLoss(), DensityDivergenceLoss(estimator="kl")
    x, y = draw(0, 512, 48), draw(1, 512, 48) + 0.5
    truth = 0.586
    assert abs(float(kl(x, y)) - truth) < abs(float(loss(x, y)) - truth)
    assert float(kl(x, x)) == pytest.approx(0, abs=1e-6)
    assert float(kl(x, y + 100)) == pytest.approx(LN2)
    moved = y.clone().requires_grad_()
    kl(x, moved).backward()
    assert torch.isfinite(moved.grad).all() and moved.grad.abs().sum() > 0
    # each point of one sample lies on a point of the other and far from its own kind
    x = torch.tensor([[0.0], [100.0]])
    assert float(kl(x, x.flip(0))) < -1e6
    assert float(loss(x, x.flip(0))) == pytest.approx(LN2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bandwidth": "scott"}, "bandwidth must be one of"),
        ({"estimator": "jsd"}, "estimator must be one of"),
        ({"min_bandwidth": 0}, "min_bandwidth must be positive"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DensityDivergenceLoss(**arguments)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [((4, 3), (4, 2), r"\(4, 3\) and \(4, 2\)"), ((4,), (4,), "samples must be"), ((1, 3), (4, 3), "at least two")],
)
def test_wrong_samples(x: tuple, y: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DensityDivergenceLoss()(torch.zeros(x), torch.zeros(y))


def coordinates(batch: int, channels: int, size: tuple[int, int, int]) -> Tensor:
    """A stream (batch, channels, *size) in which every value is its own place, counted."""
    return torch.arange(batch * channels * math.prod(size), dtype=torch.float32).reshape(batch, channels, *size)


@pytest.mark.parametrize("tokens", ["voxels", "planes"])
def test_tokens_come_from_the_same_places_without_repetition(tokens: str) -> None:
    stream = coordinates(2, 3, (4, 5, 6))
    generator = torch.Generator().manual_seed(0)
    x, y = sample_tokens(stream, stream + 0.5, 20, tokens, generator)
    assert x.shape == ((20, 3) if tokens == "voxels" else (20, 30))
    assert torch.equal(y, x + 0.5)
    assert len(x[:, 0].unique()) == 20
    rows = stream.permute(0, 2, 3, 4, 1).reshape(-1, 3) if tokens == "voxels" else stream.reshape(-1, 30)
    assert all((rows == row).all(1).any() for row in x)
    assert x[:, 0].max() >= stream[1].min(), "only the first item of the batch was sampled"


def test_all_tokens_where_there_are_fewer_and_gradients_flow_to_them() -> None:
    stream = torch.rand(1, 2, 2, 2, 2, requires_grad=True)
    x, y = sample_tokens(stream, stream.detach() + 1, 512)
    assert x.shape == (8, 2)
    (gradient,) = torch.autograd.grad(x.sum(), stream)
    assert torch.equal(gradient, torch.ones_like(stream))


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((1, 2, 4, 4, 4), (1, 2, 4, 4, 5)), {}, "one shape"),
        (((2, 4, 4, 4), (2, 4, 4, 4)), {}, r"\(B, C, D, H, W\)"),
        (((1, 2, 4, 4, 4), (1, 2, 4, 4, 4)), {"tokens": "pixels"}, "tokens must be one of"),
        (((1, 2, 4, 4, 4), (1, 2, 4, 4, 4)), {"num_samples": 1}, "at least 2"),
    ],
)
def test_wrong_streams(shapes: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_tokens(torch.zeros(shapes[0]), torch.zeros(shapes[1]), **options)
