"""Features, gates and attention of a small encoder, checked where the answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from swinfuse_components.data import synthrad_datalist
from swinfuse_components.evaluation.features import (
    PairedCrops,
    attention_records,
    cka_by_stage,
    density_records,
    gate_volume,
    linear_cka,
    paired_crops,
    pooled_features,
    pooled_pairs,
    tsne_table,
)
from swinfuse_components.networks import SwinFUSEEncoder

ROI = (64, 32, 32)


def make_encoder(dim: str = "swinfuse") -> SwinFUSEEncoder:
    torch.manual_seed(0)
    return SwinFUSEEncoder(1, 12, ROI, window_size=4, dim=dim).eval()


@pytest.fixture(scope="module")
def encoder() -> SwinFUSEEncoder:
    return make_encoder()


@pytest.fixture(scope="module")
def crops() -> PairedCrops:
    """MRI is CT turned over, a place's content kept."""
    generator = torch.Generator().manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.rand(6, 1, 4, 2, 2, generator=generator), size=ROI, mode="trilinear")
    return PairedCrops(smooth, 1 - smooth, [f"p{n // 2}" for n in range(6)])


def test_equal_images_have_cka_one_and_unrelated_ones_do_not(encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    pairs = pooled_pairs(encoder, PairedCrops(crops.ct, crops.ct, crops.patients))
    assert list(pairs) == ["with DIM", "without DIM"]
    for ct, mr in pairs.values():
        records = cka_by_stage(ct, mr, shuffles=8)
        assert [(r["stage"], r["features"]) for r in records] == list(enumerate([12, 24, 48, 96, 192]))
        assert all(r["cka"] == pytest.approx(1) and r["unrelated"] < 0.6 for r in records)


def test_without_the_module_the_encoder_is_the_plain_one(encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    plain = make_encoder("none")
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if "domain_invariance" not in k})
    around = pooled_features(encoder, crops.ct[:2], use_dim=False)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(around, pooled_features(plain, crops.ct[:2])))
    assert not torch.allclose(around[4], pooled_features(encoder, crops.ct[:2])[4], atol=1e-5)
    assert list(pooled_pairs(plain, crops)) == ["no DIM"]


def test_densities(encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    same = density_records(encoder, PairedCrops(crops.ct, crops.ct, crops.patients), points=60)
    assert {r["between"] for r in same} == {"embedding", "streams", "self"}
    assert max(r["divergence"] for r in same) < 1e-5
    apart = density_records(encoder, PairedCrops(crops.ct, crops.ct + 50, crops.patients), points=60)
    found = {(r["between"], r["bandwidth"]): r["divergence"] for r in apart}
    assert 0.3 < found["embedding", "spread"] <= math.log(2) + 1e-6


def test_tsne_tells_how_modalities_mix(crops: PairedCrops, encoder: SwinFUSEEncoder) -> None:
    ct, far = (pooled_features(encoder, images)[0] for images in (crops.ct, crops.mr * 30))
    apart = tsne_table(ct, far, crops.patients)
    assert len(apart) == 12 and set(apart["modality"]) == {"ct", "mr"} and apart["same_modality"].mean() > 0.9
    assert tsne_table(ct, ct, crops.patients)["same_modality"].mean() < 0.6


def test_attention_of_equal_images_does_not_differ(encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    records = attention_records(encoder, PairedCrops(crops.ct[:2], crops.ct[:2], crops.patients[:2]))
    same = [r["divergence"] for r in records if r["between"] == "same_place"]
    other = [r["divergence"] for r in records if r["between"] == "other_ct"]
    assert max(same) < 1e-6 < min(other) and max(other) <= math.log(2)
    assert sorted({r["layer"] for r in records}) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="found NoneType"):
        attention_records(make_encoder("none"), crops)


def test_gate_of_one_window_is_the_modules_own(encoder: SwinFUSEEncoder, crops: PairedCrops) -> None:
    gate = gate_volume(encoder, crops.ct[0])
    with torch.no_grad():
        embedding = encoder.embed(crops.ct[:1])
        own = encoder.domain_invariance.gates(embedding, embedding)[0].abs().mean(1, keepdim=True)  # type: ignore[union-attr,operator]
        own = torch.nn.functional.interpolate(own, size=ROI, mode="trilinear")[0, 0]
    assert gate.shape == torch.Size(ROI) and torch.allclose(gate, own, atol=1e-5)


def test_crops_lie_at_the_same_place_of_real_pairs(swinfuse_data: Path) -> None:
    pairs = synthrad_datalist(swinfuse_data / "SynthRAD_like")[:2]
    twice = [{**pair, "mr": pair["ct"]} for pair in pairs]  # the same content must come back, scaled otherwise
    crops = paired_crops(twice, roi_size=(32, 32, 32), spacing=(4, 4, 4), crops=2)
    assert crops.ct.shape == crops.mr.shape == (4, 1, 32, 32, 32)
    assert crops.patients == [p["patient"] for p in pairs for _ in range(2)]
    flat = zip(crops.ct.flatten(1).numpy(), crops.mr.flatten(1).numpy())
    assert min(np.corrcoef(a, b)[0, 1] for a, b in flat) > 0.95
    with pytest.raises(ValueError, match="no pairs"):
        paired_crops([], roi_size=(32, 32, 32), spacing=(4, 4, 4))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cka_is_one_for_identical_rotated_scaled_and_shifted_features() -> None:
    features = normal(60, 12)
    rotation, _ = torch.linalg.qr(normal(12, 12, seed=1))
    for other in (features, features @ rotation, 5 * features + 100):
        assert linear_cka(features, other) == pytest.approx(1, abs=1e-9)
    assert linear_cka(features, features * torch.logspace(-2, 2, 12)) < 0.7


def test_cka_is_near_zero_for_independent_features() -> None:
    values = [linear_cka(*pair) for pair in normal(20, 2, 40, 300, seed=2)]
    assert abs(sum(values) / 20) < 0.02 and max(map(abs, values)) < 0.15


def test_cka_of_many_samples_reaches_the_published_biased_formula() -> None:
    x = normal(3000, 4, seed=3)
    y = x[:, :2] + normal(3000, 2, seed=4)
    a, b = x - x.mean(0), y - y.mean(0)
    norm = torch.linalg.matrix_norm
    expected = norm(b.T @ a) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(float(expected), abs=5e-3)


def test_cka_of_constant_features_and_mistakes() -> None:
    features = normal(60, 12)
    assert math.isnan(linear_cka(features, torch.ones(60, 3)))
    with pytest.raises(ValueError, match="expected"):
        linear_cka(features, features[:10])
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(features[:3], features[:3])
