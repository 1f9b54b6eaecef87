"""Which scalars the picture of a run shows."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from swinfuse_components.engines.curves import draw_curves

TRAINING = [
    {"iteration": step, "epoch": step, "loss": 1 / step, "loss_weighted": 1 / step, "lr": 0.1}
    for step in (1.0, 2.0, 3.0)
]
VALIDATION = [
    {"iteration": 2.0, "epoch": 2.0, "val_mean_dice": 0.25, "val_loss": 2.0},
    {"iteration": 3.0, "epoch": 3.0, "val_mean_dice": 0.75, "val_loss": 1.0},
]


def test_metrics_that_only_the_validation_has_are_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    draw_curves(TRAINING, VALIDATION, tmp_path / "losses.png")
    panels = {axis.get_title(): axis for axis in drawn[0].axes if axis.get_title()}
    assert list(panels) == ["loss", "lr", "val_mean_dice"]
    (dice,) = panels["val_mean_dice"].lines
    assert dice.get_xdata().tolist() == [2, 3] and dice.get_ydata().tolist() == [0.25, 0.75]
    assert [line.get_label() for line in panels["loss"].lines][1:] == ["training", "validation"]
    assert panels["loss"].lines[-1].get_ydata().tolist() == [2, 1]
    draw_curves(TRAINING, [], tmp_path / "losses.png")
    assert [axis.get_title() for axis in drawn[1].axes if axis.get_title()] == ["loss", "lr"]
