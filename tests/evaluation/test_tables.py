"""Tables against figures worked out by hand."""

import csv
import math
from pathlib import Path

import markdown as rendered
import pytest

from swinfuse_components.evaluation.matrix import Failure
from swinfuse_components.evaluation.records import CaseTable, Row
from swinfuse_components.evaluation.results import matrix_cells, write_results
from swinfuse_components.evaluation.tables import (
    comparison_records,
    drop_records,
    markdown,
    number,
    paper_cells,
    row_name,
)

DICE = {
    ("Swin UNETR", "CT"): {"CT": [0.8, 0.6, 0.7], "MR": [0.2, 0.3, 0.1]},
    ("SwinFUSE", "CT"): {"CT": [0.7, 0.6, 0.5], "MR": [0.5, 0.6, 0.1]},
    ("blank", "-"): {"CT": [0.4, 0.4, 0.4], "MR": [0.4, 0.4, 0.4]},
}


def row(model: str, trained_on: str, target: str, case: int, dice: float, view: str = "image") -> Row:
    scores = (dice, 2.0, 5.0, math.nan if case == 2 else 0.5, 100.0, 90.0, 0.1)
    return Row(model, trained_on, view, target, f"c{case}", f"p{case}", "foreground", *scores, "f")


@pytest.fixture()
def rows() -> list[Row]:
    return [
        row(model, trained_on, target, case, value)
        for (model, trained_on), targets in DICE.items()
        for target, values in targets.items()
        for case, value in enumerate(values)
    ]


def test_cells_of_the_paper(rows: list[Row]) -> None:
    text = paper_cells(rows)
    assert "Swin UNETR / SwinFUSE in each cell" in text
    assert "| CT | 0.70/0.60 | 0.20/0.40 |" in text and "| *blank* | 0.40 | 0.40 |" in text


def test_drop_is_paired_by_patient(rows: list[Row]) -> None:
    drops = {d["model"]: d for d in drop_records(rows, {"CT": "CT"})}
    assert drops["SwinFUSE (CT)"]["drop"] == pytest.approx((0.2 + 0.0 + 0.4) / 3)
    assert drops["Swin UNETR (CT)"]["paired"] == 3 and set(drops) == {"SwinFUSE (CT)", "Swin UNETR (CT)"}
    strangers = [r if r.target == "CT" else row(r.model, r.trained_on, "MR", 9, r.dice) for r in rows]
    apart = drop_records(strangers, {"CT": "CT"})[0]
    assert apart["paired"] == 0 and apart["drop"] == pytest.approx(0.7 - 0.2) and math.isnan(apart["drop_low"])


def test_only_cases_that_both_have_are_compared(rows: list[Row]) -> None:
    fewer = [r for r in rows if not (r.model == "SwinFUSE" and r.case == "c0")]
    found = {(c["target"], c["first"], c["second"]): c for c in comparison_records(fewer)}
    pair = found["MR", "Swin UNETR (CT)", "SwinFUSE (CT)"]
    assert pair["cases"] == 2 and pair["dice_difference"] == pytest.approx(-0.15)
    assert ("MR", "SwinFUSE (CT)", "blank") in found and len(found) == 6


def test_what_is_compared(rows: list[Row]) -> None:
    more = [*rows, *(row("SwinFUSE", "CT", "MR", c, 0.3, "inverted") for c in range(3))]
    more += [row("SwinFUSE", "CT2", "MR", c, 0.3) for c in range(3)]
    pairs = {(c["first"], c["second"]) for c in comparison_records(more) if c["target"] == "MR"}
    assert ("SwinFUSE (CT)", "SwinFUSE (CT), inverted") in pairs
    assert not [p for p in pairs if "CT2" in p[0] + p[1] and "blank" not in p]
    assert ("blank", "SwinFUSE (CT), inverted") not in pairs


def test_files_of_a_run(rows: list[Row], tmp_path: Path) -> None:
    page = write_results(rows, tmp_path, failures=[Failure("MR", "c7", "", "broken | file")])
    assert "broken \\| file" in page and "| SwinFUSE (CT) | CT | 0.60" in page
    with (tmp_path / "summary.csv").open(encoding="utf-8") as file:
        summary = {(r["model"], r["target"]): r for r in csv.DictReader(file)}
    assert float(summary["SwinFUSE", "MR"]["dice"]) == pytest.approx(0.4)
    assert summary["SwinFUSE", "MR"]["sensitivity_cases"] == "2" and summary["SwinFUSE", "MR"]["cases"] == "3"
    assert matrix_cells(rows)["SwinFUSE (CT)", "MR"] == pytest.approx(0.4)
    assert (tmp_path / "paper_table2.csv").read_text(encoding="utf-8").count("\n") == 25


def test_table_on_disk_survives_a_crash(rows: list[Row], tmp_path: Path) -> None:
    table = CaseTable(tmp_path / "cases.csv")
    table.replace(rows[:2])
    table.append(rows[2:3])
    with table.path.open("a", encoding="utf-8") as file:
        file.write("SwinFUSE,CT,ima")
    again = CaseTable(table.path).rows
    assert len(again) == 3 and again[2].case == "c2" and math.isnan(again[2].sensitivity)


def test_figures_of_a_table() -> None:
    assert [number(v) for v in (0.476, -0.001, -0.25, math.nan)] == ["0.48", "0.00", "-0.25", "-"]


def test_names_of_rows() -> None:
    assert row_name("SwinFUSE", "CT", "image") == "SwinFUSE (CT)"
    assert row_name("Otsu", "-", "image") == "Otsu" and row_name("A", "CT", "inverted") == "A (CT), inverted"


def test_names_stay_text_in_every_table(tmp_path: Path) -> None:
    table = CaseTable(tmp_path / "cases.csv")
    table.replace([row("=1+1", "CT", "MR", 0, 0.5), row("Otsu", "-", "MR", 0, 0.5)])
    assert table.path.read_text(encoding="utf-8").splitlines()[1].startswith("'=1+1,")
    assert [r.model for r in CaseTable(table.path).rows] == ["=1+1", "Otsu"]
    html = rendered.markdown(markdown(["model"], [["[a](http://x)"], ["![b](http://y)"]]), extensions=["tables"])
    assert "<a" not in html and "<img" not in html and "[a](http://x)" in html
