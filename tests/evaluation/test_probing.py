"""Probes of a frozen encoder against slow references, and the whole on two small tasks."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from swinfuse_components.evaluation import read_volumes, run_probing
from swinfuse_components.evaluation.probes import Places, coarse_labels, draw_places, linear_probe, neighbour_votes
from swinfuse_components.evaluation.probing import build_encoder, stage_features, summarize_probing
from swinfuse_components.networks import SwinFUSEPretrainer

from ..bundles.conftest import write_msd_task
from ..models import write_model

SMALL = {"feature_size": 12, "roi_size": [32, 32, 32], "window_size": 4}


def test_features_are_the_encoders_on_the_grid_of_the_embedding() -> None:
    encoder = build_encoder(None, dim="swinfuse", **SMALL)
    image = torch.rand(1, 32, 32, 32)
    with torch.no_grad():
        expected = encoder(image[None])
    found = stage_features(encoder, image)
    assert [x.shape for x in found] == [(12 * 2**k, 16, 16, 16) for k in range(5)]
    torch.testing.assert_close(found[0], expected[0][0], atol=1e-4, rtol=1e-4)
    deep = F.interpolate(expected[2], size=(16, 16, 16), mode="trilinear")[0]
    torch.testing.assert_close(found[2], deep, atol=1e-4, rtol=1e-4)
    assert stage_features(encoder, torch.rand(1, 20, 46, 32))[3].shape == (96, 10, 23, 16)


def test_labels_of_places_and_what_they_stand_for() -> None:
    label = torch.zeros(4, 4, 4, dtype=torch.long)
    label[:2, :2, :2] = torch.tensor([2, 2, 2, 2, 2, 0, 0, 0]).view(2, 2, 2)
    coarse = coarse_labels(label, 2)
    assert coarse[0, 0, 0] == 2 and coarse.sum() == 2
    places, weights = draw_places(coarse, 3, torch.Generator().manual_seed(0))
    assert len(places) == 4 and coarse.flatten()[places].tolist() == [0, 0, 0, 2]
    assert weights.tolist() == pytest.approx([7 / 3] * 3 + [1])


def test_the_linear_probe_learns_what_a_line_can_tell_and_no_more() -> None:
    x = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(3000)
    line, xor = (x[:, 1] > 0.5).long(), ((x[:, 1] > 0) ^ (x[:, 2] > 0)).long()
    right = [(linear_probe(Places(x, y, weights), 1)(x).argmax(1) == y).float().mean() for y in (line, xor)]
    assert right[0] > 0.98 and right[1] < 0.7


def test_neighbours_vote_for_as_many_places_as_they_stand_for() -> None:
    g = torch.Generator().manual_seed(0)
    known, asked = torch.randn(60, 4, generator=g), torch.randn(9, 4, generator=g)
    labels, weights = torch.arange(60) % 3, torch.rand(60, generator=g)
    for row, point in zip(neighbour_votes(asked, Places(known, labels, weights), 2, 5), asked):
        nearest = sorted(range(60), key=lambda k: float((known[k] - point).norm()))[:5]
        expected = [sum(float(weights[k]) for k in nearest if labels[k] == value) for value in range(3)]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)


def test_any_encoder_and_the_settings_beside_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    encoder = build_encoder(model / "model.pt")
    assert encoder.domain_invariance is not None and encoder.roi_size == (64, 32, 32)
    saved = torch.load(model / "model.pt", weights_only=True)["model"]
    assert torch.equal(encoder.patch_embed.proj.weight, saved["swinViT.patch_embed.proj.weight"])
    pretrainer = SwinFUSEPretrainer(roi_size=64, feature_size=12, window_size=4, dim="none")
    torch.save({"model": pretrainer.state_dict()}, tmp_path / "elsewhere.pt")
    read = build_encoder(tmp_path / "elsewhere.pt", **SMALL)
    assert torch.equal(read.patch_embed.proj.weight, pretrainer.swinViT.patch_embed.proj.weight)
    same, other = build_encoder(None, 1, **SMALL), build_encoder(None, 2, **SMALL)
    assert not torch.equal(same.patch_embed.proj.weight, other.patch_embed.proj.weight)


@pytest.mark.slow
def test_from_data_sets_to_tables(tmp_path: Path) -> None:
    for number, (name, modality) in enumerate((("BoxCT", "CT"), ("BoxMR", "MRI"))):
        options = {"cases": 4 + number, "shape": (32, 30, 24), "spacing": (1.5, 1.5, 2.0)}
        write_msd_task(tmp_path, name, (modality,), ("box",), **options)
    grid = {"spacing": [2, 2, 2], "ct_window": [-200, 200]}
    volumes = read_volumes(str(tmp_path / "BoxCT"), [str(tmp_path / "BoxMR")], **grid, num_folds=2)
    classes, training, test = volumes
    assert classes == {"box": 1} and len(training) == 2 and {v.dataset for v in test} == {"BoxCT", "BoxMR"}
    # the patients are the same in both tasks: those that are trained on are tested in neither
    assert not {v.name for v in training} & {v.name for v in test}
    encoders = {"random": [SMALL, SMALL], "other": {**SMALL, "dim": "swinfuse"}}
    table = run_probing(encoders, volumes, tmp_path / "out", places=50, neighbours=3)
    assert set(table["stage"]) == {"0", "1", "2", "3", "4", "all"} and set(table["probe"]) == {"linear", "neighbours"}
    scores = table.query("probe == 'linear' and dataset == 'BoxCT' and stage == '0'")["dice"]
    assert scores.between(0.5, 1).all()  # a bright box
    again = run_probing(encoders, volumes, tmp_path / "out", places=50, neighbours=3)
    assert len(again) == len(table)  # nothing was computed twice
    assert set(run_probing({"few": SMALL}, volumes, tmp_path / "few", places=50, stages=["2"])["stage"]) == {"2"}
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert set(summary.query("encoder == 'random'")["seeds"]) == {2}
    assert "| other | linear | all | BoxMR |" in (tmp_path / "out" / "probing.md").read_text()


def test_difference_to_the_reference_over_the_same_cases() -> None:
    rows = []
    for name, seed, case, organ in itertools.product(("random", "ours"), (0, 1), "abc", ("liver", "spleen")):
        dice = 0.2 + 0.1 * (name == "ours") + 0.1 * (case == "b") + 0.02 * seed + 0.3 * (organ == "liver")
        where = {"probe": "linear", "stage": "all", "dataset": "MR", "case": case, "class": organ}
        rows.append({"encoder": name, "seed": seed, **where, "dice": dice})
    summary = summarize_probing(pd.DataFrame(rows), "random").set_index("encoder")
    assert summary.loc["ours", "dice"] == pytest.approx(0.3 + 0.1 / 3 + 0.01 + 0.15)
    assert summary.loc["ours", "difference"] == pytest.approx(0.1)
    assert pd.isna(summary.loc["random", "difference"])
    assert summary.loc["ours", "lowest_seed"] == pytest.approx(0.3 + 0.1 / 3 + 0.15)
