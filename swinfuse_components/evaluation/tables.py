"""From rows of cases to tables: summaries, comparisons, drops, and the paper's ``1/2`` cells."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .records import Row
from .statistics import Summary, holm, paired_test, summarize

METRICS = ("dice", "surface_distance", "hausdorff95", "sensitivity")


def group(rows: Iterable[Row]) -> dict[tuple[str, str, str, str, str], list[Row]]:
    """Rows by (model, trained_on, view, target, label), in the order in which they come."""
    groups: dict[tuple[str, str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.model, row.trained_on, row.view, row.target, row.label].append(row)
    return dict(groups)


def summary_records(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One record per model, training data, view, target and class: each metric's mean and bootstrap interval."""
    records = []
    for (model, trained_on, view, target, label), members in group(rows).items():
        record: dict[str, Any] = {
            "model": model,
            "trained_on": trained_on,
            "view": view,
            "target": target,
            "label": label,
            "cases": len(members),
        }
        for metric in METRICS:
            summary = summarize([getattr(row, metric) for row in members])
            record |= {
                metric: summary.mean,
                f"{metric}_low": summary.low,
                f"{metric}_high": summary.high,
                f"{metric}_median": summary.median,
                f"{metric}_std": summary.std,
                f"{metric}_cases": summary.cases,
            }
        records.append(record)
    return records


def comparison_records(rows: Iterable[Row], *, metric: str = "dice", method: str = "wilcoxon") -> list[dict[str, Any]]:
    """Every pair of rows of a target and class that share cases, tested on the cases both have.

    On the plain image, models are compared with each other where they were trained on the same data, and with every
    trivial baseline; another view of a model is compared with its own plain image. ``p_holm`` corrects for all the
    tests of a target.
    """
    by_target: dict[tuple[str, str], dict[tuple[str, str, str], dict[str, float]]] = defaultdict(dict)
    for (model, trained_on, view, target, label), members in group(rows).items():
        by_target[target, label][model, trained_on, view] = {row.case: getattr(row, metric) for row in members}
    records = []
    for (target, label), columns in by_target.items():
        found: list[dict[str, Any]] = []
        names = list(columns)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                if not _is_asked(first, second):
                    continue
                cases = [case for case in columns[first] if case in columns[second]]
                if not cases:
                    continue
                test = paired_test(
                    [columns[first][c] for c in cases], [columns[second][c] for c in cases], method=method
                )
                found.append(
                    {
                        "target": target,
                        "label": label,
                        "first": row_name(*first),
                        "second": row_name(*second),
                        f"{metric}_difference": test.difference,
                        "low": test.low,
                        "high": test.high,
                        "p": test.p_value,
                        "cases": test.cases,
                        "test": test.method,
                    }
                )
        for record, corrected in zip(found, holm([float(r["p"]) for r in found])):
            record["p_holm"] = corrected
        records += found
    return records


def _is_asked(first: tuple[str, str, str], second: tuple[str, str, str]) -> bool:
    """Whether two rows, each (model, trained_on, view), are worth a test."""
    if "image" not in (first[2], second[2]):
        return False
    if first[2] != second[2]:
        return first[:2] == second[:2]
    baselines = (first[1], second[1]).count("-")
    return baselines == 1 or (baselines == 0 and first[1] == second[1])


def drop_records(
    rows: Iterable[Row], in_distribution: Mapping[str, str], *, metric: str = "dice"
) -> list[dict[str, Any]]:
    """In-distribution score, out-of-distribution score and the drop between them.

    Args:
        rows: of the matrix.
        in_distribution: for the data a model was trained on, the column that is its own held-out part.
        metric: a column of the rows.

    Returns:
        one record per model, view, class and other target. The drop and its interval are over the patients tested in
        both (``paired``: how many); where the two share no patients only the difference of the means stands.
    """
    groups = group(rows)
    records = []
    for (model, trained_on, view, target, label), members in groups.items():
        home = in_distribution.get(trained_on)
        if home is None or target == home:
            continue
        own = groups.get((model, trained_on, view, home, label), [])
        if not own:
            continue
        inside, outside = ({r.patient: getattr(r, metric) for r in part} for part in (own, members))
        both = [p for p in outside if p in inside]
        mean_in, mean_out = (summarize([getattr(r, metric) for r in part]) for part in (own, members))
        paired = summarize([inside[p] - outside[p] for p in both])
        records.append(
            {
                "model": row_name(model, trained_on, view),
                "label": label,
                "in_distribution": home,
                "in_mean": mean_in.mean,
                "in_low": mean_in.low,
                "in_high": mean_in.high,
                "out_of_distribution": target,
                "out_mean": mean_out.mean,
                "out_low": mean_out.low,
                "out_high": mean_out.high,
                "drop": paired.mean if both else mean_in.mean - mean_out.mean,
                "drop_low": paired.low,
                "drop_high": paired.high,
                "paired": len(both),
            }
        )
    return records


def row_name(model: str, trained_on: str, view: str) -> str:
    """``SwinFUSE (SarcomaCT), inverted``; the plain image goes without saying."""
    name = model if trained_on == "-" else f"{model} ({trained_on})"
    return name if view == "image" else f"{name}, {view}"


def number(value: float, digits: int = 2) -> str:
    """A figure for a table; undefined ones as a dash."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def with_interval(summary: Summary, digits: int = 2) -> str:
    """``0.47 (0.41 to 0.52)``."""
    if math.isnan(summary.low):
        return number(summary.mean, digits)
    return f"{number(summary.mean, digits)} ({number(summary.low, digits)} to {number(summary.high, digits)})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; names in it stay text."""
    # pipes, code and the bracket of a link or picture: names of models and cases are text
    body = [[re.sub(r"([|`]|(?<=\])\()", r"\\\1", str(cell)) for cell in line] for line in [header, *lines]]
    rows = [body[0], ["---"] * len(header), *body[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def paper_cells(rows: Iterable[Row], *, view: str = "image", metric: str = "dice") -> str:
    """The paper's Table 2 layout: training data by target, the models' means as ``1/2`` in each cell.

    Baselines, which are trained on nothing, follow as rows of their own.
    """
    groups = group(rows)
    models = list(dict.fromkeys(k[0] for k in groups if k[1] != "-"))
    trained = list(dict.fromkeys(k[1] for k in groups if k[1] != "-"))
    columns = list(dict.fromkeys((k[3], k[4]) for k in groups))
    several = len({label for _, label in columns}) > 1

    def cell(model: str, trained_on: str, shown: str, column: tuple[str, str]) -> str:
        members = groups.get((model, trained_on, shown, *column), [])
        return number(summarize([getattr(r, metric) for r in members]).mean)

    lines = [
        [trained_on, *("/".join(cell(model, trained_on, view, column) for model in models) for column in columns)]
        for trained_on in trained
    ]
    baselines = list(dict.fromkeys((k[0], k[2]) for k in groups if k[1] == "-"))
    lines += [[f"*{name}*", *(cell(name, "-", shown, column) for column in columns)] for name, shown in baselines]
    header = ["trained on", *(f"{t}: {label}" if several else t for t, label in columns)]
    return f"Mean Dice, {' / '.join(models)} in each cell.\n\n" + markdown(header, lines)
