"""Numbers beside the attention picture, and points where they belong."""

import csv
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from swinfuse_components.visualization.attention import AttentionPicture, attention_overlay
from swinfuse_components.visualization.scatter import scatter


def test_attention_in_target_body_and_outside(tmp_path: Path) -> None:
    image, truth = np.zeros((12, 12, 8)), np.zeros((12, 12, 8))
    image[2:10, 2:10] = 0.5
    truth[4:6, 4:6, 3:5] = 1
    gate = np.where(truth > 0, 2.0, np.where(image > 0, 1.0, 0.5))
    row = AttentionPicture("p1, CT", image, gate, np.diag([2.0, 2.0, 4.0, 1.0]), truth, truth)
    png = attention_overlay([row, row], tmp_path / "attention.png")
    assert matplotlib.image.imread(png).shape[1] > 1000
    with png.with_suffix(".csv").open(encoding="utf-8") as file:
        record = next(csv.DictReader(file))
    numbers = [float(record[f"gate {part}"]) for part in ("in target", "in body", "outside")]
    assert numbers == [2.0, 1.0, 0.5] and record["slice (RAS)"] == "4"
    with pytest.raises(ValueError, match="no volumes"):
        attention_overlay([], tmp_path / "a.png")


def test_scatter(tmp_path: Path) -> None:
    png = scatter({"CT": [(0, 0), (1, 1)], "MR": [(0, 1)]}, tmp_path / "s.png", links=[((0, 0), (0, 1))])
    pixels = matplotlib.image.imread(png)[..., :3]
    assert (np.abs(pixels - np.array([0xD5, 0x5E, 0x00]) / 255).max(-1) < 0.02).sum() > 100
    with pytest.raises(ValueError, match="no points"):
        scatter({"CT": []}, tmp_path / "s.png")
