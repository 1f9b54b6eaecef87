"""Which scalars the picture of a run shows."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from swinfuse_components.engines.curves import draw_curves

# the last line is cut short
TRAINING = "iteration,epoch,loss,loss_weighted,lr\n1,1,1,1,0.1\n2,2,0.5,0.5,0.1\n3,3,0.25,0.25,0.1\n4,4,0.1"
VALIDATION = "iteration,epoch,val_mean_dice,val_loss\n2,2,0.25,2\n3,3,0.75,1\n"


def test_metrics_that_only_the_validation_has_are_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    training, validation = tmp_path / "losses.csv", tmp_path / "validation.csv"
    training.write_text(TRAINING, encoding="utf-8")
    validation.write_text(VALIDATION, encoding="utf-8")
    draw_curves(training, validation, tmp_path / "losses.png")
    panels = {axis.get_title(): axis for axis in drawn[0].axes if axis.get_title()}
    assert list(panels) == ["loss", "lr", "val_mean_dice"]
    (dice,) = panels["val_mean_dice"].lines
    assert dice.get_xdata().tolist() == [2, 3] and dice.get_ydata().tolist() == [0.25, 0.75]
    assert [line.get_label() for line in panels["loss"].lines][1:] == ["training", "validation"]
    assert panels["loss"].lines[-1].get_ydata().tolist() == [2, 1]
    draw_curves(training, tmp_path / "none.csv", tmp_path / "losses.png")
    assert [axis.get_title() for axis in drawn[1].axes if axis.get_title()] == ["loss", "lr"]
