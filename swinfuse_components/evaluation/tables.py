"""Scores to tables: ``cases.csv``, summaries, comparisons, drops, and a page of Markdown."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..engines.files import atomic_write, csv_cell, from_csv_cell
from .paper import TARGETS, paper_table2
from .scores import EMPTY_RULE
from .statistics import holm, paired_test, summarize

logger = logging.getLogger(__name__)

METRICS = ["dice", "surface_distance", "hausdorff95", "sensitivity"]
NUMBERS = [*METRICS, "truth_volume", "predicted_volume", "seconds"]
ROW, COLUMN = ["model", "trained_on", "view"], ["target", "label"]
#: what makes a row of ``cases.csv`` the only one of its kind, its class (``label``) aside
KEY = [*ROW, "target", "case"]
#: of ``cases.csv``: scores of one class of one case by one model, distances in mm, volumes in cubic mm
COLUMNS = [*KEY, "patient", "label", *NUMBERS, "fingerprint"]

READING = f"""A Dice counts only above what the trivial baselines reach: where volumes are cropped around their target,
position alone goes far. Intervals are bootstrap intervals (95 %) over the cases; they say nothing of other seeds or
data. {EMPTY_RULE}"""
PAPER = """Paper's figures (arXiv:2405.12781, Table 2), not measured here. Dice of Swin UNETR / SwinFUSE, fine-tuned on
a CT task (rows), tested on an MRI task (columns). (?) row label taken from the order of the tasks in the text. ? the
prose contradicts the cell: it gives 0.16/0.26 for Pancreas to Prostate, and 0.27 as the largest gain."""


def csv_text(table: pd.DataFrame, *, header: bool = True) -> str:
    """A table as CSV; no text in it is a formula to a spreadsheet."""
    return table.map(csv_cell).to_csv(header=header, index=False, na_rep="nan")


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as CSV, in one step; an empty table has no columns.

    Returns:
        the path.
    """
    with atomic_write(path) as file:
        file.write(csv_text(table) if len(table.columns) else "")
    return Path(path)


def read_cases(path: str | Path) -> pd.DataFrame:
    """Rows of ``cases.csv``, none if there is no file. A line that was cut short by a crash is left out.

    Raises:
        ValueError: the file is something else.
    """
    rows = []
    if Path(path).is_file() and Path(path).stat().st_size:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(line.replace("\0", "") for line in file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise ValueError(f"{path} is no table of scores: move it away, or choose another output_dir")
            for record in reader:
                with suppress(KeyError, TypeError, ValueError):
                    rows.append([float(record[c]) if c in NUMBERS else from_csv_cell(record[c]) for c in COLUMNS])
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))


def row_name(model: str, trained_on: str, view: str) -> str:
    """``SwinFUSE (SarcomaCT), inverted``; the plain image goes without saying."""
    name = model if trained_on == "-" else f"{model} ({trained_on})"
    return name if view == "image" else f"{name}, {view}"


def summary_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per model, training data, view, target and class: each metric's mean and bootstrap interval."""
    records = []
    for key, group in rows.groupby([*ROW, *COLUMN], sort=False):
        record: dict[str, Any] = {**dict(zip([*ROW, *COLUMN], key)), "cases": len(group)}
        for metric in METRICS:
            for name, value in summarize(group[metric])._asdict().items():
                record[metric if name == "mean" else f"{metric}_{name}"] = value
        records.append(record)
    return pd.DataFrame(records).drop(columns=[f"{metric}_total" for metric in METRICS], errors="ignore")


def comparison_table(rows: pd.DataFrame, *, method: str = "wilcoxon") -> pd.DataFrame:
    """Pairs of rows of a target and class, their Dice tested on the cases that both have.

    On the plain image, models are compared with each other where they were trained on the same data, and with every
    trivial baseline; another view of a model is compared with its own plain image. ``p_holm`` corrects for all the
    tests of a target and class.
    """
    records = []
    for (target, label), part in rows.groupby(COLUMN, sort=False):
        dice = {key: dict(zip(group["case"], group["dice"])) for key, group in part.groupby(ROW, sort=False)}
        found: list[dict[str, Any]] = []
        for i, first in enumerate(dice):
            for second in list(dice)[i + 1 :]:
                cases = [case for case in dice[first] if case in dice[second]]
                if not cases or not _is_asked(first, second):
                    continue
                test = paired_test([dice[first][c] for c in cases], [dice[second][c] for c in cases], method=method)
                names = {"target": target, "label": label, "first": row_name(*first), "second": row_name(*second)}
                numbers = {"dice_difference": test.difference, "low": test.low, "high": test.high, "p": test.p_value}
                found.append({**names, **numbers, "cases": test.cases, "test": test.method})
        corrected = holm([record["p"] for record in found])
        records += [{**record, "p_holm": p} for record, p in zip(found, corrected)]
    return pd.DataFrame(records)


def _is_asked(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two rows, each (model, trained_on, view), are worth a test."""
    if "image" not in (first[2], second[2]):
        return False
    if first[2] != second[2]:
        return first[:2] == second[:2]
    baselines = (first[1], second[1]).count("-")
    return baselines == 1 or (baselines == 0 and first[1] == second[1])


def drop_table(rows: pd.DataFrame, in_distribution: Mapping[str, str]) -> pd.DataFrame:
    """Dice in distribution, out of distribution, and the drop between them.

    Args:
        rows: of the matrix.
        in_distribution: for the data a model was trained on, the column that is its own held-out part.

    Returns:
        one line per model, view, class and other target. The drop and its interval are over the patients tested in
        both (``paired``: how many); where the two share no patients only the difference of the means stands.
    """
    groups, records = dict(iter(rows.groupby([*ROW, *COLUMN], sort=False))), []
    for (model, trained_on, view, target, label), group in groups.items():
        home = in_distribution.get(trained_on)
        own = groups.get((model, trained_on, view, home, label))
        if own is None or target == home:
            continue
        means = [summarize(part["dice"]) for part in (own, group)]
        inside, outside = (dict(zip(part["patient"], part["dice"])) for part in (own, group))
        paired = summarize([inside[p] - outside[p] for p in outside if p in inside])
        record = {"model": row_name(model, trained_on, view), "label": label}
        for place, column, mean in zip(("in", "out_of"), (home, target), means):
            short = place.removesuffix("_of")
            record |= {f"{place}_distribution": column, f"{short}_mean": mean.mean}
            record |= {f"{short}_low": mean.low, f"{short}_high": mean.high}
        drop = paired.mean if paired.total else means[0].mean - means[1].mean
        record |= {"drop": drop, "drop_low": paired.low, "drop_high": paired.high, "paired": paired.total}
        records.append(record)
    return pd.DataFrame(records)


def _columns(rows: pd.DataFrame) -> pd.Series:
    """Name of each row's column: the target, with the class where there are several."""
    return rows["target"] if rows["label"].nunique() <= 1 else rows["target"] + ": " + rows["label"]


def matrix_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice: a row for every model and view, a column for every target (and class, if there are several)."""
    rows = rows.assign(row=[row_name(*key) for key in rows[ROW].itertuples(index=False)], column=_columns(rows))
    cells = rows.groupby(["row", "column"])["dice"].mean().unstack()
    return cells.loc[rows["row"].unique(), rows["column"].unique()]


class Section(NamedTuple):
    """A table with its heading and an explanation, all of it plain text."""

    title: str
    text: str
    header: list[str]
    lines: list[list[str]]


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; undefined ones as a dash."""
    if value is None or pd.isna(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """``0.47 (0.41 to 0.52)``, or the mean alone where there is no interval."""
    text = number(mean, digits)
    return text if pd.isna(low) else f"{text} ({number(low, digits)} to {number(high, digits)})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; names in it stay text: pipes, code, links and HTML are escaped."""

    def row(cells: Sequence[str]) -> str:
        escaped = [re.sub(r"([|`]|(?<=\])[(\[])", r"\\\1", str(cell)).replace("<", "&lt;") for cell in cells]
        return "| " + " | ".join(" ".join(cell.splitlines()) for cell in escaped) + " |\n"

    return "".join([row(header), row(["---"] * len(header)), *map(row, lines)])


def paper_cells(rows: pd.DataFrame, view: str = "image") -> Section:
    """The layout of the paper's Table 2: training data by target, the models' mean Dice as ``1/2`` in each cell.

    Baselines, which are trained on nothing, follow as rows of their own.
    """
    rows = rows.assign(column=_columns(rows))
    rows = rows if view == "image" else rows[rows["view"] == view]
    columns, shown = list(rows["column"].unique()), rows[rows["view"] == view]
    trained = rows[rows["trained_on"] != "-"]
    models = list(trained["model"].unique())
    means = shown.groupby(["model", "trained_on", "column"])["dice"].mean()

    def line(name: str, trained_on: str, models: Sequence[str]) -> list[str]:
        return [name, *("/".join(number(means.get((m, trained_on, c))) for m in models) for c in columns)]

    lines = [line(name, name, models) for name in trained["trained_on"].unique()]
    lines += [line(name, "-", [name]) for name in shown[shown["trained_on"] == "-"]["model"].unique()]
    title = "Table" if view == "image" else f"Table, the image shown as {view}"
    return Section(title, f"Mean Dice, {' / '.join(models)} in each cell.", ["trained on", *columns], lines)


def _summary_section(summary: pd.DataFrame) -> Section:
    header = ["model", "target", "class", "cases", "Dice", "surface distance, mm", "95 % Hausdorff, mm", "sensitivity"]
    lines = []
    for r in summary.to_dict("records"):
        cells = [interval(r[m], r[f"{m}_low"], r[f"{m}_high"], d) for m, d in zip(METRICS, (2, 1, 1, 2))]
        cases = f"{r['cases']}" if r["dice_cases"] == r["cases"] else f"{r['dice_cases']} of {r['cases']}"
        lines.append([row_name(r["model"], r["trained_on"], r["view"]), r["target"], r["label"], cases, *cells])
    return Section("Scores with intervals", "", header, lines)


def _drop_section(drops: pd.DataFrame) -> Section:
    header = ["model", "in distribution", "Dice", "out of distribution", "Dice", "drop", "patients in both"]
    lines = []
    for d in drops.to_dict("records"):
        inside, outside = (interval(d[f"{x}_mean"], d[f"{x}_low"], d[f"{x}_high"]) for x in ("in", "out"))
        drop = interval(d["drop"], d["drop_low"], d["drop_high"])
        cells = [d["model"], d["in_distribution"], inside, d["out_of_distribution"], outside, drop]
        lines.append([*cells, str(d["paired"])])
    return Section("In distribution, out of distribution, and the drop", "", header, lines)


def _comparison_section(comparisons: pd.DataFrame, method: str) -> Section:
    test = {"wilcoxon": "Wilcoxon's signed-rank test", "permutation": "a sign-flip permutation test"}[method]
    text = f"Difference of Dice, first minus second; p by {test}, and corrected by Holm within a target."
    lines = []
    for c in comparisons.to_dict("records"):
        target = c["target"] if c["label"] == "foreground" else f"{c['target']}: {c['label']}"
        cells = [interval(c["dice_difference"], c["low"], c["high"]), number(c["p"], 3), number(c["p_holm"], 3)]
        lines.append([target, c["first"], c["second"], *cells, str(c["cases"])])
    header = ["target", "first", "second", "difference", "p", "p (Holm)", "cases"]
    return Section("Comparisons on the same cases", text, header, lines)


def _paper_section(cells: pd.DataFrame) -> Section:
    lines = []
    for source, row in cells.groupby("fine_tuned_on", sort=False):
        marks = [" ?" if unsure else "" for unsure in row["unsure_cell"]]
        figures = [f"{a:.2f}/{b:.2f}{mark}" for a, b, mark in zip(row["swin_unetr"], row["swinfuse"], marks)]
        lines.append([f"{source} (?)" if row["unsure_row"].all() else str(source), *figures])
    return Section("The paper's table, for reading beside", PAPER, ["fine-tuned on", *TARGETS], lines)


def write_results(
    rows: pd.DataFrame,
    output_dir: str | Path,
    *,
    in_distribution: Mapping[str, str] | None = None,
    failures: pd.DataFrame | None = None,
    method: str = "wilcoxon",
    reference: bool = True,
    title: str = "Out-of-distribution evaluation",
) -> str:
    """Write ``summary.csv``, ``comparisons.csv``, ``drops.csv``, ``paper_table2.csv``, ``summary.md`` and its JSON.

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
    home = {name: name for name in rows["trained_on"]} if in_distribution is None else in_distribution
    summary, comparisons, drops = summary_table(rows), comparison_table(rows, method=method), drop_table(rows, home)
    for name, table in (("summary", summary), ("comparisons", comparisons), ("drops", drops)):
        write_csv(table, folder / f"{name}.csv")
    sections = [paper_cells(rows, view) for view in ["image", *(v for v in rows["view"].unique() if v != "image")]]
    sections.append(_summary_section(summary))
    sections += [_drop_section(drops)] if len(drops) else []
    sections += [_comparison_section(comparisons, method)] if len(comparisons) else []
    if failures is not None and len(failures):
        lines = failures.to_numpy().tolist()
        sections.append(Section("Cases that could not be scored", "", list(failures.columns), lines))
    if reference:
        write_csv(paper_table2(), folder / "paper_table2.csv")
        sections.append(_paper_section(paper_table2()))
    content = {"title": title, "text": READING, "sections": [section._asdict() for section in sections]}
    page = f"# {title}\n\n{READING}\n"
    for section in sections:
        page += f"\n## {section.title}\n\n" + (f"{section.text}\n\n" if section.text else "")
        page += markdown(section.header, section.lines)
    for name, text in (("summary.json", json.dumps(content, indent=1)), ("summary.md", page)):
        with atomic_write(folder / name) as file:
            file.write(text)
    logger.info("%s\ntables: %s", markdown(sections[0].header, sections[0].lines), folder)
    return page
