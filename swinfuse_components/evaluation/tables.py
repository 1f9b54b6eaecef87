"""Scores to tables: ``cases.csv``, summaries, comparisons, drops, and a page of Markdown."""

import csv
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..engines.files import atomic_write, csv_cell, from_csv_cell
from .paper import TARGETS, paper_table2
from .scores import EMPTY_RULE
from .statistics import Summary, holm, paired_test, summarize

logger = logging.getLogger(__name__)

METRICS = ["dice", "surface_distance", "hausdorff95", "sensitivity"]
NUMBERS = [*METRICS, "truth_volume", "predicted_volume", "seconds"]
ROW, COLUMN = ["model", "trained_on", "view"], ["target", "label"]
#: what makes a row of ``cases.csv`` the only one of its kind, its class (``label``) aside
KEY = [*ROW, "target", "case"]
#: of ``cases.csv``: scores of one class of one case by one model, distances in mm, volumes in cubic mm
COLUMNS = [*KEY, "patient", "label", *NUMBERS, "fingerprint"]

TITLE = "Out-of-distribution evaluation"
READING = f"""A Dice counts only above what the trivial baselines reach: where volumes are cropped around their target,
position alone goes far. Intervals are bootstrap intervals (95 %) over the cases; they say nothing of other seeds or
data. {EMPTY_RULE}"""
PAPER = """Paper's figures (arXiv:2405.12781, Table 2), not measured here. Dice of Swin UNETR / SwinFUSE, fine-tuned on
a CT task (rows), tested on an MRI task (columns). (?) row label taken from the order of the tasks in the text. ? the
prose contradicts the cell: it gives 0.16/0.26 for Pancreas to Prostate, and 0.27 as the largest gain."""


def csv_text(table: pd.DataFrame, *, header: bool = True, na_rep: str = "nan") -> str:
    """A table as CSV; no text in it is a formula to a spreadsheet."""
    return table.map(csv_cell).to_csv(header=header, index=False, na_rep=na_rep) if len(table.columns) else ""


def write_csv(table: pd.DataFrame, path: str | Path, *, na_rep: str = "nan", keep_other: bool = False) -> Path:
    """Write a table as CSV, in one step; ``keep_other`` as in :func:`~swinfuse_components.engines.atomic_write`."""
    with atomic_write(path, keep_other=keep_other) as file:
        file.write(csv_text(table, na_rep=na_rep))
    return Path(path)


def read_cases(path: str | Path) -> pd.DataFrame:
    """Rows of ``cases.csv`` but for lines cut short by a crash; none if there is no file, ValueError for another."""
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
            mean, *others = summarize(group[metric])
            record |= {metric: mean, **{f"{metric}_{name}": v for name, v in zip(Summary._fields[1:], others)}}
        records.append(record)
    return pd.DataFrame(records)


def comparison_table(rows: pd.DataFrame, *, method: str = "wilcoxon") -> pd.DataFrame:
    """Pairs of rows of a target and class, their Dice tested on the cases that both have.

    On the plain image, models are compared with each other where they were trained on the same data, and with every
    baseline; another view of a model is compared with its own plain image. ``p_holm`` corrects within target and class.
    """
    found = []
    for (target, label), part in rows.groupby(COLUMN, sort=False):
        dice = part.set_index(["case", *ROW])["dice"].unstack(ROW).reindex(part["case"].unique())
        for first, second in combinations(part[ROW].drop_duplicates().itertuples(index=False, name=None), 2):
            both = dice[[first, second]].dropna()
            if len(both) and _is_asked(first, second):
                names = {"target": target, "label": label, "first": row_name(*first), "second": row_name(*second)}
                found.append({**names, **paired_test(both[first], both[second], method=method)._asdict()})
    table = pd.DataFrame(found).rename(columns={"difference": "dice_difference", "p_value": "p", "method": "test"})
    return table.assign(p_holm=table.groupby(COLUMN)["p"].transform(holm)) if found else table


def _is_asked(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two rows, each (model, trained_on, view), are worth a test."""
    if "image" not in (first[2], second[2]):
        return False
    if first[2] != second[2]:
        return first[:2] == second[:2]
    baselines = (first[1], second[1]).count("-")
    return baselines == 1 or (baselines == 0 and first[1] == second[1])


def drop_table(rows: pd.DataFrame, in_distribution: Mapping[str, str]) -> pd.DataFrame:
    """Dice in distribution, out of distribution, and the drop between them, per model, view, class and other target.

    ``in_distribution`` is, for the data a model was trained on, the column that is its own held-out part. The drop and
    its interval are over the ``paired`` patients tested in both; without any only the difference of the means stands.
    """
    groups, records = dict(iter(rows.groupby([*ROW, *COLUMN], sort=False))), []
    for (model, trained_on, view, target, label), group in groups.items():
        home = in_distribution.get(trained_on)
        own = groups.get((model, trained_on, view, home, label))
        if own is None or target == home:
            continue
        record = {"model": row_name(model, trained_on, view), "label": label}
        for place, short, column, part in (("in", "in", home, own), ("out_of", "out", target, group)):
            mean, low, high, *_ = summarize(part["dice"])
            record |= {f"{place}_distribution": column, f"{short}_mean": mean}
            record |= {f"{short}_low": low, f"{short}_high": high}
        inside, outside = (dict(zip(part["patient"], part["dice"])) for part in (own, group))
        paired = [inside[patient] - dice for patient, dice in outside.items() if patient in inside]
        drop, low, high, *_ = summarize(paired)
        drop = drop if paired else record["in_mean"] - record["out_mean"]
        records.append({**record, "drop": drop, "drop_low": low, "drop_high": high, "paired": len(paired)})
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
    return "-" if value is None or pd.isna(value) else f"{round(float(value), digits) + 0:.{digits}f}"


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
    """The paper's Table 2: training data by target, the models' mean Dice as ``1/2`` in each cell; then baselines."""
    rows = rows.assign(column=_columns(rows))
    rows = rows if view == "image" else rows[rows["view"] == view]
    columns, shown = list(rows["column"].unique()), rows[rows["view"] == view]
    trained, baselines = rows[rows["trained_on"] != "-"], shown[shown["trained_on"] == "-"]
    models = list(trained["model"].unique())
    means = shown.groupby(["model", "trained_on", "column"])["dice"].mean()
    named = [(name, name, models) for name in trained["trained_on"].unique()]
    named += [(name, "-", [name]) for name in baselines["model"].unique()]
    lines = [
        [name, *("/".join(number(means.get((m, trained_on, c))) for m in shown_models) for c in columns)]
        for name, trained_on, shown_models in named
    ]
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
        drop, paired = interval(d["drop"], d["drop_low"], d["drop_high"]), str(d["paired"])
        lines.append([d["model"], d["in_distribution"], inside, d["out_of_distribution"], outside, drop, paired])
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
) -> str:
    """Write ``summary.csv``, ``comparisons.csv``, ``drops.csv``, ``paper_table2.csv``, ``summary.md`` and its JSON.

    ``in_distribution`` is that of :func:`drop_table`, by default the column of the same name, where there is one;
    ``failures`` are cases that could not be scored; ``method`` is ``wilcoxon`` or ``permutation``; ``reference`` sets
    the paper's Table 2 beside the table. Returns the page in Markdown.
    """
    folder = Path(output_dir)
    home = {name: name for name in rows["trained_on"]} if in_distribution is None else in_distribution
    summary, comparisons, drops = summary_table(rows), comparison_table(rows, method=method), drop_table(rows, home)
    sections = [paper_cells(rows, view) for view in ["image", *(v for v in rows["view"].unique() if v != "image")]]
    sections.append(_summary_section(summary))
    sections += [_drop_section(drops)] if len(drops) else []
    sections += [_comparison_section(comparisons, method)] if len(comparisons) else []
    if failures is not None and len(failures):
        lines = failures.to_numpy().tolist()
        sections.append(Section("Cases that could not be scored", "", list(failures.columns), lines))
    tables = {"summary": summary, "comparisons": comparisons, "drops": drops}
    if reference:
        tables["paper_table2"] = paper_table2()
        sections.append(_paper_section(tables["paper_table2"]))
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
    content = {"title": TITLE, "text": READING, "sections": [section._asdict() for section in sections]}
    page = f"# {TITLE}\n\n{READING}\n"
    for title, text, header, lines in sections:
        page += f"\n## {title}\n\n" + (f"{text}\n\n" if text else "") + markdown(header, lines)
    for name, text in (("summary.json", json.dumps(content, indent=1)), ("summary.md", page)):
        with atomic_write(folder / name) as file:
            file.write(text)
    logger.info("%s\ntables: %s", markdown(sections[0].header, sections[0].lines), folder)
    return page
