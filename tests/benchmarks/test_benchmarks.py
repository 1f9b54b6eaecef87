"""The benchmarks measure the same work on both sides, or refuse to."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from swinfuse_components.losses import PretrainingLoss
from swinfuse_components.networks import SwinFUSEPretrainer


@pytest.fixture(scope="module")
def benchmarks(repository):
    sys.path.insert(0, str(repository))
    names = ("reference", "cases", "report", "worker")
    yield {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    sys.path.remove(str(repository))


@pytest.fixture
def ours():
    torch.manual_seed(0)
    return SwinFUSEPretrainer(roi_size=(64, 32, 32), feature_size=12, window_size=5, dim="none").double()


@pytest.fixture
def views():
    both = torch.rand(2, 1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return both[0], both[1]


def test_reference_does_the_same_work_in_float64(benchmarks, ours, views):
    reference = benchmarks["reference"].ReferencePretrainer(12, 5).double()
    benchmarks["reference"].check_same_work(ours, reference, views, tolerance=1e-9)
    assert not reference.pooled_heads  # measured as published


def test_refuses_another_number_of_parameters(benchmarks, ours, views):
    with pytest.raises(ValueError, match="parameters differ: ours"):
        benchmarks["reference"].check_same_work(ours, benchmarks["reference"].ReferencePretrainer(12, 4), views)


def test_refuses_other_shapes_and_other_values(benchmarks, ours, views):
    reference = benchmarks["reference"].ReferencePretrainer(12, 5).double()
    whole = reference.decoder
    reference.decoder = torch.nn.Sequential(*[m for m in whole if not isinstance(m, torch.nn.Upsample)])
    with pytest.raises(ValueError, match="reconstruction: shapes differ"):
        benchmarks["reference"].check_same_work(ours, reference, views)
    reference.decoder = torch.nn.Sequential(*[m for m in whole if not isinstance(m, torch.nn.LeakyReLU)])
    with pytest.raises(ValueError, match="reconstruction: values differ"):
        benchmarks["reference"].check_same_work(ours, reference, views)


def test_refuses_other_losses(benchmarks, ours, views):
    module = benchmarks["reference"]
    reference = module.ReferencePretrainer(12, 5).double()

    class HalfReconstruction(module.ReferenceLoss):
        def forward(self, outputs, images, rotations):
            return (
                super().forward(outputs, images, rotations)
                - 0.5 * (torch.cat([o[2] for o in outputs]) - images).abs().mean()
            )

    plain = PretrainingLoss(density_weight=0.0)
    module.check_same_work(ours, reference, views, 1e-6, (plain, module.ReferenceLoss()))
    with pytest.raises(ValueError, match="losses differ: ours .*, reference"):
        module.check_same_work(ours, reference, views, 1e-4, (plain, HalfReconstruction()))
    with pytest.raises(ValueError, match="losses differ"):
        module.check_same_work(
            ours,
            reference,
            views,
            1e-4,
            (PretrainingLoss(rotation_weight=0.9, density_weight=0.0), module.ReferenceLoss()),
        )


def test_the_steps_start_at_the_same_loss(benchmarks, ours, views):
    """One contrastive pair has no negative, so that both losses are L1 and cross-entropy."""
    module = benchmarks["reference"]
    reference = module.ReferencePretrainer(12, 5, pooled_heads=True).double()
    module.copy_weights(ours, reference)
    images, rotations = torch.cat(views), torch.tensor([0, 3])
    theirs = module.reference_step(reference, module.ReferenceLoss(), views, images, rotations, None)
    target = {"reconstruction": images, "rotation": rotations}
    mine = PretrainingLoss(density_weight=0.0)(ours(*views), target)["loss"]
    assert float(mine) == pytest.approx(theirs, rel=1e-6)


def test_measures_small_cases(benchmarks):
    settings = benchmarks["cases"].Settings(roi_size=64, feature_size=12, window_size=4)
    for case, variant in (("augmentation", "reference"), ("augmentation", "plain"), ("density", "16")):
        found = benchmarks["worker"].measure(case, variant, settings, repeats=2, with_shares=variant == "16")
        assert len(found["seconds"]) == 2
        assert found["peak_gib"] > 0
    assert sum(found["shares"].values()) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pretraining", "finetuning", "inference_brats", "inference_msd", "fed"])
def test_every_variant_runs(benchmarks, case):
    settings = benchmarks["cases"].Settings(roi_size=64, feature_size=12, window_size=4)
    make, variants, _ = benchmarks["cases"].CASES[case]
    for variant in variants:
        make(settings, variant)()


def test_cropped_inference_equals_the_plain_one_on_the_foreground(benchmarks, monkeypatch):
    """Windows of the foreground alone: the same network, the same logits where one window holds it."""
    cases = benchmarks["cases"]
    monkeypatch.setitem(cases.VOLUMES, "brats", (1, (96, 96, 96), (96, 96, 96)))
    settings = cases.Settings(roi_size=64, feature_size=12, window_size=4)
    plain, cropped = (cases.inference(settings, variant)() for variant in ("reference", "crop"))
    torch.testing.assert_close(cropped, plain, rtol=1e-3, atol=1e-3)


def test_ratios_are_taken_within_a_round(benchmarks):
    def item(variant, malloc, number, seconds, peak=2.0):
        key = {"case": "pretraining", "variant": variant, "batch": 1, "malloc": malloc, "round": number}
        return key | {"seconds": seconds, "clock": [2 * s for s in seconds], "peak_gib": peak}

    measurements = [
        item("reference", "tuned", 0, [4.0]),
        item("none", "tuned", 0, [2.0], 1.0),
        item("reference", "default", 0, [8.0]),
        item("reference", "tuned", 1, [9.0]),
        item("none", "tuned", 1, [3.0], 1.0),
        {"case": "pretraining", "variant": "paper", "batch": 1, "malloc": "tuned", "round": 0, "error": ["full"]},
    ]
    settings = {"roi_size": 96, "feature_size": 48, "window_size": 7, "batch_size": 1}
    results = {"settings": settings, "threads": 1, "torch": "2", "device_name": "x", "measurements": measurements}
    rows = {(row["variant"], row["malloc"]): row for row in benchmarks["report"].summarise(results)}
    none = rows["none", "tuned"]
    assert none["speed"] == (2.5, 2.0, 3.0)
    assert none["speed_default"] == none["speed_clock_default"] == (4.0, 4.0, 4.0)
    assert none["clock"] == 2 * none["seconds"]
    assert none["memory"] == 0.5
    text = benchmarks["report"].to_markdown(results)
    ratio = "2.50 (2.00-3.00); 4.00 (4.00-4.00) against default malloc"
    assert f"| 2.5 | {ratio} | 5 | {ratio} | 1.00 | 0.50 |" in text
    assert "failed: full" in text
