"""What a figure shows is checked on the arrays behind it; that it can be read was checked by eye."""

import csv
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from swinfuse_components.evaluation.report import training_curves
from swinfuse_components.visualization.plots import class_colour, curves, heat_map, new_figure, scatter
from swinfuse_components.visualization.slices import (
    CasePicture,
    attention_overlay,
    best_slice,
    cut,
    side_by_side,
    to_ras,
)

from ..models import read_rows

LPS = np.diag([-2.0, -1.0, 3.0, 1.0])


def test_patient_right_is_left_in_the_picture_whatever_the_storage() -> None:
    """One voxel at the patient's right, front and top, in two storages: it lands at the same corner of the pictures."""
    volume = np.zeros((4, 5, 6))
    volume[3, 4, 5] = 1  # in right-anterior-superior storage
    pictures = []
    for array, affine in ((volume, np.diag([2.0, 1.0, 3.0, 1.0])), (volume[::-1, ::-1], LPS)):
        ras, spacing = to_ras(array, affine)
        assert spacing == (2.0, 1.0, 3.0) and ras[3, 4, 5] == 1
        pictures += [cut(ras, i, p) for i, p in ((5, "axial"), (4, "coronal"), (3, "sagittal"))]
    assert all(picture[0, 0] == 1 and picture.sum() == 1 for picture in pictures)
    assert [picture.shape for picture in pictures[:3]] == [(5, 4), (6, 4), (6, 5)]


def test_slice_shows_the_target() -> None:
    target = np.zeros((10, 10, 10))
    target[2:5, 2:5, 3] = 1
    target[2:9, 2:9, 7] = 1
    assert best_slice(target, "axial") == 7
    target[8, 8, 3] = 2  # a second class, small, is seen only there
    assert best_slice(target, "axial") == 3
    assert best_slice(np.zeros((10, 6, 4)), "coronal") == 3


def test_side_by_side(tmp_path: Path) -> None:
    truth = np.zeros((24, 20, 16), np.uint8)
    truth[4:12, 4:12, 4:8] = 1
    image = np.random.default_rng(0).uniform(size=truth.shape) + truth
    answers = {"Swin UNETR": np.roll(truth, 2, 0), "SwinFUSE": truth}
    case = CasePicture("p1", image, LPS, truth, answers, {"Swin UNETR": 0.75, "SwinFUSE": 1.0})
    png = side_by_side([case], tmp_path / "figures" / "a.png", classes={"box": 1})
    pixels = matplotlib.image.imread(png)[..., :3]
    colour = np.array([int(class_colour(1)[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    assert (np.abs(pixels - colour).max(-1) < 0.02).sum() > 200  # outlines and the legend
    with png.with_suffix(".csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["p1", "axial", "6", "0.7500", "1.0000"]
    other = CasePicture("p2", image, LPS, truth, {"SwinFUSE": truth})
    with pytest.raises(ValueError, match="different models"):
        side_by_side([case, other], tmp_path / "b.png", classes={"box": 1})
    with pytest.raises(ValueError, match="no cases"):
        side_by_side([], tmp_path / "b.png", classes={})


def test_heat_map_colours_follow_the_values(tmp_path: Path) -> None:
    cells = pd.DataFrame({"x": [0.0, np.nan], "y": [1.0, np.nan]}, index=["a", "b"])
    pixels = matplotlib.image.imread(heat_map(cells, tmp_path / "h.png"))[..., :3]
    for rgb in ((0.267, 0.005, 0.329), (0.993, 0.906, 0.144)):  # the two ends of viridis
        assert (np.abs(pixels - np.array(rgb)).max(-1) < 0.01).sum() > 2000
    with pytest.raises(ValueError, match="no cells"):
        heat_map(pd.DataFrame(), tmp_path / "h.png")


def test_curves_of_runs(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("iteration,loss,val,note\n1,2.0,,a\n2,1.5,0.4,b\n3,nan,,c\n", encoding="utf-8")
    section = training_curves("Curves", {"run": tmp_path, "none": tmp_path / "none"})
    assert [figure["caption"] for figure in section["figures"]] == ["run"]
    with pytest.raises(ValueError, match="no curves"):
        curves(pd.DataFrame(), tmp_path / "c.png")


def test_attention_in_target_body_and_outside(tmp_path: Path) -> None:
    image, truth = np.zeros((12, 12, 8)), np.zeros((12, 12, 8))
    image[2:10, 2:10] = 0.5
    truth[4:6, 4:6, 3:5] = 1
    gate = np.where(truth > 0, 2.0, np.where(image > 0, 1.0, 0.5))
    row = CasePicture("p1, CT", image, np.diag([2.0, 2.0, 4.0, 1.0]), truth, {"prediction": truth}, gate=gate)
    png = attention_overlay([row, row], tmp_path / "attention.png")
    assert matplotlib.image.imread(png).shape[1] > 1000
    record = read_rows(png.with_suffix(".csv"))[0]
    numbers = [float(record[f"gate {part}"]) for part in ("in target", "in body", "outside")]
    assert numbers == [2.0, 1.0, 0.5] and record["slice (RAS)"] == "4"


def test_figures_do_not_touch_the_callers_matplotlib() -> None:
    import matplotlib.pyplot as plt

    new_figure(2, 2)
    assert plt.get_fignums() == []


def test_scatter(tmp_path: Path) -> None:
    points = pd.DataFrame({"x": [0, 1, 0, 1], "y": [0, 1, 1, 0], "modality": ["ct", "ct", "mr", "mr"]})
    pixels = matplotlib.image.imread(scatter(points, tmp_path / "s.png"))[..., :3]
    assert (np.abs(pixels - np.array([0xD5, 0x5E, 0x00]) / 255).max(-1) < 0.02).sum() > 100
