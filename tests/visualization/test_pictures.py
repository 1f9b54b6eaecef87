"""What a figure shows is checked on the arrays behind it; that it can be read was checked by eye."""

import csv
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from swinfuse_components.visualization.curves import curves, read_columns
from swinfuse_components.visualization.heat_map import heat_map
from swinfuse_components.visualization.segmentations import CasePicture, side_by_side
from swinfuse_components.visualization.slices import around, best_slice, cut, to_ras
from swinfuse_components.visualization.style import CLASS_COLOURS, class_colour, new_figure

LPS = np.diag([-2.0, -1.0, 3.0, 1.0])


def test_colours_belong_to_label_values() -> None:
    assert class_colour(1) == CLASS_COLOURS[0] and class_colour(9) == class_colour(1)
    with pytest.raises(ValueError, match="0 has no colour"):
        class_colour(0)


def test_patient_right_is_left_in_the_picture_whatever_the_storage() -> None:
    """One voxel at the patient's right, front and top, in two storages: it lands at the same corner of the pictures."""
    volume = np.zeros((4, 5, 6))
    volume[3, 4, 5] = 1  # in right-anterior-superior storage
    pictures = []
    for array, affine in ((volume, np.diag([2.0, 1.0, 3.0, 1.0])), (volume[::-1, ::-1], LPS)):
        ras, spacing = to_ras(array, affine)
        assert spacing == (2.0, 1.0, 3.0) and ras[3, 4, 5] == 1
        pictures.append([cut(ras, spacing, i, p) for i, p in ((5, "axial"), (4, "coronal"), (3, "sagittal"))])
    for axial, coronal, sagittal in pictures:
        assert axial.pixels[0, 0] == 1 and axial.marks == "RLAP" and axial.extent == (0, 4 * 2.0, 0, 5 * 1.0)
        assert coronal.pixels[0, 0] == 1 and coronal.marks == "RLSI" and coronal.extent == (0, 8.0, 0, 18.0)
        assert sagittal.pixels[0, 0] == 1 and sagittal.marks == "APSI" and sagittal.extent == (0, 5.0, 0, 18.0)


def test_slice_shows_the_target() -> None:
    target = np.zeros((10, 10, 10))
    target[2:5, 2:5, 3] = 1
    target[2:9, 2:9, 7] = 1
    assert best_slice(target, "axial") == 7
    target[8, 8, 3] = 2  # a second class, small, is seen only there
    assert best_slice(target, "axial") == 3
    assert best_slice(np.zeros((10, 6, 4)), "coronal") == 3


def test_box_around_the_target() -> None:
    labels = np.zeros((10, 10, 10))
    labels[2:4, 5:8, 5] = 1
    piece = cut(labels, (2.0, 2.0, 2.0), 5)
    # right (x) is left: x 2..3 of 10 is columns 6..7; anterior (y) is up: y 5..7 is rows 2..4
    assert around([piece], 1.0) == (11.0, 17.0, 9.0, 17.0)
    assert around([cut(labels, (2.0, 2.0, 2.0), 0)], 1.0) is None


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
    values = {("a", "x"): 0.0, ("a", "y"): 1.0, ("b", "x"): float("nan")}
    pixels = matplotlib.image.imread(heat_map(values, tmp_path / "h.png"))[..., :3]
    for rgb in ((0.267, 0.005, 0.329), (0.993, 0.906, 0.144)):  # the two ends of viridis
        assert (np.abs(pixels - np.array(rgb)).max(-1) < 0.01).sum() > 2000
    with pytest.raises(ValueError, match="no cells"):
        heat_map({}, tmp_path / "h.png")


def test_curves_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_text("iteration,loss,val,note\n1,2.0,,a\n2,1.5,0.4,b\n3,nan,,c\n", encoding="utf-8")
    columns = read_columns(tmp_path / "losses.csv")
    assert set(columns) == {"iteration", "loss", "val"} and columns["loss"][:2] == [2.0, 1.5]
    png = curves({"loss": (columns["iteration"], columns["loss"])}, tmp_path / "c.png", bounds={"ln 2": 0.693})
    assert matplotlib.image.imread(png).shape[0] > 300
    with pytest.raises(ValueError, match="no curves"):
        curves({}, tmp_path / "c.png")


def test_figures_do_not_touch_the_callers_matplotlib() -> None:
    import matplotlib.pyplot as plt

    new_figure(2, 2)
    assert plt.get_fignums() == []
