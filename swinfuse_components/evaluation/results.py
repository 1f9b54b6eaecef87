"""The files a matrix leaves behind: CSV of every summary, one page of Markdown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .matrix import Failure
from .records import Row, write_csv
from .reference import table2, table2_markdown
from .tables import comparison_records, drop_records, markdown, number, paper_cells, row_name, summary_records

logger = logging.getLogger(__name__)

READING = """A Dice counts only above what the trivial baselines reach: where volumes are cropped around their target,
position alone goes far. Intervals are bootstrap intervals (95 %) over the cases; they say nothing of other seeds or
data. Where truth and prediction are both empty Dice is 1 and the surface distance 0; where one of them is empty Dice is
0 and the distance is the diagonal of the volume."""


def _between(record: Mapping[str, Any], key: str, digits: int = 2) -> str:
    low, high = number(record[f"{key}_low"], digits), number(record[f"{key}_high"], digits)
    mean = number(record[key], digits)
    return mean if low == "-" else f"{mean} ({low} to {high})"


def write_results(
    rows: Sequence[Row],
    output_dir: str | Path,
    *,
    in_distribution: Mapping[str, str] | None = None,
    failures: Sequence[Failure] = (),
    method: str = "wilcoxon",
    reference: bool = True,
    title: str = "Out-of-distribution evaluation",
) -> str:
    """Write ``summary.csv``, ``comparisons.csv``, ``drops.csv``, ``paper_table2.csv`` and ``summary.md``.

    Args:
        rows: of the matrix.
        output_dir: folder for the files.
        in_distribution: for the data a model was trained on, the column that is its own held-out part; by default the
            column of the same name, where there is one.
        failures: cases that could not be scored.
        method: ``wilcoxon`` or ``permutation``.
        reference: set the paper's Table 2 beside the table.
        title: of the page.

    Returns:
        the page in Markdown.
    """
    folder = Path(output_dir)
    home = {row.trained_on: row.trained_on for row in rows} if in_distribution is None else dict(in_distribution)
    summaries, drops = summary_records(rows), drop_records(rows, home)
    comparisons = comparison_records(rows, method=method)
    write_csv(folder / "summary.csv", summaries)
    write_csv(folder / "comparisons.csv", comparisons)
    write_csv(folder / "drops.csv", drops)
    parts = [f"# {title}\n", READING + "\n", "## Table\n", paper_cells(rows)]
    parts += [
        f"With the image shown as {view}:\n\n" + paper_cells([r for r in rows if r.view == view], view=view)
        for view in dict.fromkeys(row.view for row in rows)
        if view != "image"
    ]
    parts += [
        "## Scores with intervals\n",
        markdown(
            ["model", "target", "class", "cases", "Dice", "surface distance, mm", "95 % Hausdorff, mm", "sensitivity"],
            [
                [
                    row_name(r["model"], r["trained_on"], r["view"]),
                    r["target"],
                    r["label"],
                    str(r["cases"]),
                    _between(r, "dice"),
                    _between(r, "surface_distance", 1),
                    _between(r, "hausdorff95", 1),
                    _between(r, "sensitivity"),
                ]
                for r in summaries
            ],
        ),
    ]
    if drops:
        parts += [
            "## In distribution, out of distribution, and the drop\n",
            markdown(
                ["model", "in distribution", "Dice", "out of distribution", "Dice", "drop", "patients in both"],
                [
                    [
                        d["model"],
                        d["in_distribution"],
                        _between({"x": d["in_mean"], "x_low": d["in_low"], "x_high": d["in_high"]}, "x"),
                        d["out_of_distribution"],
                        _between({"x": d["out_mean"], "x_low": d["out_low"], "x_high": d["out_high"]}, "x"),
                        _between({"x": d["drop"], "x_low": d["drop_low"], "x_high": d["drop_high"]}, "x"),
                        str(d["paired"]),
                    ]
                    for d in drops
                ],
            ),
        ]
    if comparisons:
        name = {"wilcoxon": "Wilcoxon's signed-rank test", "permutation": "a sign-flip permutation test"}[method]
        parts += [
            "## Comparisons on the same cases\n",
            f"Difference of Dice, first minus second; p by {name}, and corrected by Holm within a target.\n",
            markdown(
                ["target", "first", "second", "difference", "p", "p (Holm)", "cases"],
                [
                    [
                        c["target"] if c["label"] == "foreground" else f"{c['target']}: {c['label']}",
                        c["first"],
                        c["second"],
                        _between({"x": c["dice_difference"], "x_low": c["low"], "x_high": c["high"]}, "x"),
                        number(c["p"], 3),
                        number(c["p_holm"], 3),
                        str(c["cases"]),
                    ]
                    for c in comparisons
                ],
            ),
        ]
    if failures:
        parts += ["## Cases that could not be scored\n", markdown(["target", "case", "model", "reason"], failures)]
    if reference:
        cells = [
            {"fine_tuned_on": source, "tested_on": target, **cell._asdict()}
            for (source, target), cell in table2().items()
        ]
        write_csv(folder / "paper_table2.csv", cells)
        parts += ["## The paper's table, for reading beside\n", table2_markdown()]
    page = "\n".join(parts)
    (folder / "summary.md").write_text(page, encoding="utf-8")
    logger.info("%s\ntables: %s", paper_cells(rows), folder)
    return page


def matrix_cells(rows: Sequence[Row], *, metric: str = "dice") -> dict[tuple[str, str], float]:
    """Mean of a metric by (row of the table, column), for a heat map."""
    labels = {row.label for row in rows}
    return {
        (
            row_name(r["model"], r["trained_on"], r["view"]),
            r["target"] if len(labels) == 1 else f"{r['target']}: {r['label']}",
        ): r[metric]
        for r in summary_records(rows)
    }
