"""Eq. 4: the sum of its named terms, their weights and signs, and what is asked of the inputs."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from swinfuse_components.losses import DensityDivergenceLoss, NTXentLoss, PretrainingLoss

TERMS = ("inpainting", "rotation", "contrastive", "density")


@pytest.fixture
def prediction() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "reconstruction": torch.rand(6, 1, 8, 8, 8, generator=g, requires_grad=True),
        "rotation": torch.randn(6, 4, generator=g, requires_grad=True),
        "contrastive": torch.randn(6, 16, generator=g, requires_grad=True),
        "stream_i": torch.randn(3, 6, 4, 4, 4, generator=g, requires_grad=True),
        "stream_j": torch.randn(3, 6, 4, 4, 4, generator=g, requires_grad=True),
    }


@pytest.fixture
def target() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "reconstruction": torch.rand(6, 1, 8, 8, 8, generator=g),
        "rotation": torch.randint(0, 4, (6,), generator=g),
        "cutout": torch.rand(6, 1, 8, 8, 8, generator=g) < 0.3,
    }


def with_weights(weights: dict[str, float]) -> PretrainingLoss:
    return PretrainingLoss(weights["inpainting"], weights["rotation"], weights["contrastive"], weights["density"])


def test_each_term_equals_its_own_loss(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    terms = PretrainingLoss(density={"num_samples": 10_000}, temperature=0.2)(prediction, target)
    subtracted = PretrainingLoss(density_weight=-1, density={"num_samples": 10_000}, temperature=0.2)(
        prediction, target
    )
    voxels = [prediction[name].permute(0, 2, 3, 4, 1).reshape(-1, 6) for name in ("stream_i", "stream_j")]
    expected = {
        "inpainting": F.l1_loss(prediction["reconstruction"], target["reconstruction"]),
        "rotation": F.cross_entropy(prediction["rotation"], target["rotation"]),
        "contrastive": NTXentLoss(0.2)(prediction["contrastive"][:3], prediction["contrastive"][3:]),
        "density": DensityDivergenceLoss()(*voxels),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), abs=1e-6), name
        assert not terms[name].requires_grad
    total = sum(expected.values())
    assert terms["loss"].item() == pytest.approx(total.item(), abs=1e-5)
    eq4 = total - 2 * expected["density"]
    assert subtracted["loss"].item() == pytest.approx(eq4.item(), abs=1e-5)


def test_named_terms_before_and_after_their_weights(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    weights = {"inpainting": 2.0, "rotation": 0.5, "contrastive": 3.0, "density": -0.25}
    terms = with_weights(weights)(prediction, target)
    assert set(terms) == {"loss", "contrastive_accuracy", *TERMS, *(f"{name}_weighted" for name in TERMS)}
    for name, weight in weights.items():
        assert terms[f"{name}_weighted"].item() == pytest.approx(weight * terms[name].item())
    assert terms["loss"].item() == pytest.approx(sum(terms[f"{name}_weighted"].item() for name in TERMS), abs=1e-6)
    assert terms["loss"].requires_grad


@pytest.mark.parametrize("alone", TERMS)
def test_a_term_alone_gives_gradient_to_its_inputs_only(
    alone: str, prediction: dict[str, Tensor], target: dict[str, Tensor]
) -> None:
    terms = with_weights({name: float(name == alone) for name in TERMS})(prediction, target)
    terms["loss"].backward()
    own = {"inpainting": {"reconstruction"}, "density": {"stream_i", "stream_j"}}.get(alone, {alone})
    assert {name for name, tensor in prediction.items() if tensor.grad is not None} == own
    assert set(TERMS) <= set(terms), "the others are logged all the same"


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_sign_of_the_density_weight_turns_its_gradient(
    sign: float, prediction: dict[str, Tensor], target: dict[str, Tensor]
) -> None:
    loss = PretrainingLoss(0, 0, 0, density_weight=sign, density={"num_samples": 10_000})
    stream_j = (prediction["stream_j"].detach() + 0.7).requires_grad_()
    terms = loss(prediction | {"stream_j": stream_j}, target)
    (gradient,) = torch.autograd.grad(terms["loss"], stream_j)
    moved = (stream_j - 3 * gradient / gradient.norm()).detach()
    after = loss(prediction | {"stream_j": moved}, target)["density"]
    assert sign * float(terms["density"] - after) > 1e-3


def test_cutout_weighting(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    error = (prediction["reconstruction"] - target["reconstruction"]).abs().detach()
    cut, kept = error[target["cutout"]], error[~target["cutout"]]

    def inpainting(weighting: float) -> float:
        return float(PretrainingLoss(cutout_weighting=weighting)(prediction, target)["inpainting"])

    assert inpainting(1) == pytest.approx(float(error.mean()), abs=1e-6)
    assert inpainting(0) == pytest.approx(float(kept.mean()), abs=1e-6)
    expected = (5 * cut.sum() + kept.sum()) / (5 * len(cut) + len(kept))
    assert inpainting(5) == pytest.approx(float(expected), abs=1e-6)
    assert inpainting(1e6) == pytest.approx(float(cut.mean()), abs=1e-5)


@pytest.mark.parametrize(("options", "points"), [({}, 6), ({"tokens": "planes"}, 16)])
def test_density_settings_reach_the_loss(
    options: dict,
    points: int,
    prediction: dict[str, Tensor],
    target: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = PretrainingLoss(density={"bandwidth": "paper", "num_samples": 7, **options})
    assert loss.density.bandwidth == "paper"
    seen = []

    def remember(x: Tensor, y: Tensor) -> Tensor:
        seen.append((tuple(x.shape), tuple(y.shape)))
        return x.sum()

    monkeypatch.setattr(loss.density, "forward", remember)
    loss(prediction, target)
    assert seen == [((7, points), (7, points))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions(
    dtype: torch.dtype, prediction: dict[str, Tensor], target: dict[str, Tensor]
) -> None:
    half = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in prediction.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = PretrainingLoss(temperature=0.01)(half, target)
    terms["loss"].backward()
    assert terms["loss"].dtype == torch.float32
    for tensor in half.values():
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


def test_meta_tensors_give_plain_scalars(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    from monai.data import MetaTensor

    wrapped = target | {"reconstruction": MetaTensor(target["reconstruction"])}
    terms = PretrainingLoss()(prediction, wrapped)
    assert all(type(value) is Tensor for value in terms.values())


def test_partners_found_by_the_network_and_by_a_histogram(
    prediction: dict[str, Tensor], target: dict[str, Tensor]
) -> None:
    z = torch.eye(3)
    embeddings = {"contrastive": torch.cat([z, z.flip(0)])}  # the second of three finds its partner, from both sides
    views = torch.rand(3, 1, 8, 8, 8) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1, 1)
    shown = {"view": torch.cat([views, views.rot90(1, (2, 3))])}
    terms = PretrainingLoss()(prediction | embeddings, target | shown)
    assert float(terms["contrastive_accuracy"]) == pytest.approx(1 / 3)
    assert float(terms["histogram_accuracy"]) == 1


def test_bounds() -> None:
    assert PretrainingLoss().bounds(4) == {"density": math.log(2), "contrastive": math.log(7)}
    collapsed = {"contrastive": torch.ones(8, 5)}
    terms = PretrainingLoss(0, 0, 1, 0)(collapsed, {})
    assert float(terms["contrastive"]) == pytest.approx(PretrainingLoss().bounds(4)["contrastive"], abs=1e-6)


def test_missing_inputs_of_a_weighted_term_are_named(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    del prediction["stream_j"]
    with pytest.raises(ValueError, match=r"density term \(weight 1\) needs prediction\['stream_j'\]"):
        PretrainingLoss()(prediction, target)
    assert "density" not in PretrainingLoss(density_weight=0)(prediction, target)
    del target["cutout"]
    with pytest.raises(ValueError, match=r"target\['cutout'\]"):
        PretrainingLoss(density_weight=0, cutout_weighting=2)(prediction, target)
    with pytest.raises(ValueError, match="all weights are 0"):
        PretrainingLoss(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cutout_weighting": -1}, "cutout_weighting"),
        ({"density": {"bandwith": "paper"}}, "unknown settings.*bandwith"),
        ({"density": {"bandwidth": "silverman"}}, "bandwidth must be one of"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_wrong_settings(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainingLoss(**arguments)


def test_shapes_that_would_broadcast_are_refused(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    target["reconstruction"] = target["reconstruction"][:, :, :1]
    with pytest.raises(ValueError, match="they must agree"):
        PretrainingLoss()(prediction, target)


def test_nothing_cut_out_does_not_divide_by_zero(prediction: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    everything = target | {"cutout": torch.ones_like(target["cutout"])}
    terms = PretrainingLoss(cutout_weighting=0)(prediction, everything)
    assert float(terms["inpainting"]) == 0
