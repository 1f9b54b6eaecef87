"""Tables recomputed from stored per-case scores of real volumes: the numbers must stay the same to 1e-12.

``golden/cases.csv`` holds two untrained networks, a folder of label maps and three baselines on seven patients of
Task51_SarcomaCT and Task52_SarcomaMR; ``golden/runs`` the evaluations of two models and two folds.
"""

import csv
import json
from pathlib import Path

import pytest

from swinfuse_components.evaluation.folds_table import folds_csv, folds_markdown, folds_table, read_evaluations
from swinfuse_components.evaluation.record import write_evaluation
from swinfuse_components.evaluation.tables import comparison_table, read_cases, write_csv, write_results

GOLDEN = Path(__file__).parent / "golden"


def cells(path: Path) -> list[list[str | float]]:
    def value(text: str) -> str | float:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [[value(text) for text in line] for line in csv.reader(file)]


def assert_equal(found: Path, expected: Path) -> None:
    for a, b in zip(cells(found), cells(expected), strict=True):
        assert a == [x if isinstance(x, str) else pytest.approx(x, rel=0, abs=1e-12, nan_ok=True) for x in b]


def table_lines(page: str) -> set[str]:
    """Lines of all Markdown tables, without emphasis and rules."""
    lines = (line.replace("*", "") for line in page.splitlines() if line.startswith("|"))
    return {line for line in lines if "---" not in line}


def test_out_of_distribution_tables(tmp_path: Path) -> None:
    rows = read_cases(GOLDEN / "cases.csv")
    page = write_results(rows, tmp_path)
    for name in ("summary", "comparisons", "drops"):
        assert_equal(tmp_path / f"{name}.csv", GOLDEN / f"{name}.csv")
    assert table_lines((GOLDEN / "summary.md").read_text(encoding="utf-8")) - table_lines(page) == set()
    permutation = write_csv(comparison_table(rows, method="permutation"), tmp_path / "permutation.csv")
    assert_equal(permutation, GOLDEN / "comparisons_permutation.csv")
    again = write_csv(rows, tmp_path / "cases.csv").read_text(encoding="utf-8")
    assert again.splitlines() == (GOLDEN / "cases.csv").read_text(encoding="utf-8").splitlines()


def test_table_of_folds() -> None:
    rows = folds_table(read_evaluations([GOLDEN / "runs"]))
    assert folds_csv(rows) == (GOLDEN / "table.csv").read_text(encoding="utf-8")
    expected = (GOLDEN / "table.md").read_text(encoding="utf-8").replace("|---|---|", "| --- | --- |")
    assert folds_markdown(rows).split() == expected.split()


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("runs/*/evaluation.json")), ids=lambda file: file.parent.name)
def test_means_of_an_evaluation(file: Path, tmp_path: Path) -> None:
    golden = json.loads(file.read_text(encoding="utf-8"))
    description = {"name": golden["task"], "model_name": golden["model"], **golden}
    cases = json.loads(json.dumps(golden["cases"]).replace("null", "NaN"))
    facts = {key: golden[key] for key in ("fold", "section")}
    record = write_evaluation(tmp_path / "evaluation.json", description, cases, **facts)
    assert "left out of the mean" in record.pop("empty_masks")
    for metric, means in golden.pop("mean").items():
        assert record["mean"][metric] == pytest.approx(means, abs=1e-6)  # of rounded scores
    assert {**record, "mean": {}} == {**golden, "mean": {}}
