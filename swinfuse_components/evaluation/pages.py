"""The HTML report of an evaluation and of the runs behind it, from the files that they left."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..visualization import report
from ..visualization.slices import side_by_side
from .pictures import drawn_classes, gallery, read_index

logger = logging.getLogger(__name__)


def write_report(
    output: str = "report.html",
    *,
    evaluation: str | Sequence[str] | None = None,
    runs: str | Sequence[str] | Mapping[str, str] = (),
    pictures: str | Sequence[str] = (),
    title: str = "SwinFUSE",
    note: str = "",
    cases: int = 1,
) -> str:
    """Write one HTML file that needs no network and no other file.

    Args:
        output: the file.
        evaluation: ``output_dir`` of one or several evaluations: their tables, heat map, segmentations side by side and
            an interactive viewer of their cases.
        runs: folders of training runs, or ``{name: folder}``: curves from ``losses.csv`` and ``validation.csv``.
        pictures: further PNG files.
        title: of the page.
        note: a sentence or two below it.
        cases: of each column, so many are shown.

    Returns:
        path of the file.

    Raises:
        FileNotFoundError: if an evaluation's folder holds none.
        ValueError: if there is nothing to show.
    """
    sections: list[dict[str, Any]] = [{"heading": "Note", "text": note}] if note else []
    folders = [evaluation] if isinstance(evaluation, (str, Path)) else list(evaluation or ())
    for folder in map(Path, folders):
        name = f" ({folder.name})" if len(folders) > 1 else ""
        sections += _evaluation_sections(folder, name, cases)
    if not (evaluation or runs or pictures):
        raise ValueError("a report needs something to show: --evaluation, --runs or --pictures")
    run_list = [runs] if isinstance(runs, str) else runs
    named = runs if isinstance(runs, Mapping) else {Path(run).name: run for run in run_list}
    sections.append(report.training_curves("Training curves", named))
    files = [pictures] if isinstance(pictures, str) else list(pictures)
    sections.append(report.pictures("Pictures", {Path(file).stem.replace("_", " "): file for file in files}))
    written = report.write_page(output, title, [s for s in sections if any(s.get(k) for k in s if k != "heading")])
    logger.info("report: %s", written)
    return str(written)


def _evaluation_sections(folder: Path, name: str, cases: int) -> list[dict[str, Any]]:
    """Tables, heat map, segmentations and viewer of one evaluation."""
    index, summary = read_index(folder), folder / "summary.json"
    if summary.is_file():
        content = json.loads(summary.read_text(encoding="utf-8"))
        sections = [{"heading": f"Tables{name}", "text": content["text"], "tables": content["sections"]}]
    else:  # of an earlier version
        sections = [{"heading": f"Tables{name}", "plain": (folder / "summary.md").read_text(encoding="utf-8")}]
    if (folder / "matrix.png").is_file():
        caption = "Mean Dice of every model on every data set"
        sections.append(report.pictures(f"Heat map{name}", {caption: folder / "matrix.png"}))
    drawn, shown = {}, []
    for number, target in enumerate(index["targets"]):
        try:
            rows = gallery(folder, target, count=cases)
        except (OSError, ValueError) as error:  # a picture less is no reason to write no report
            logger.warning("no pictures of %s: %s", target, error)
            continue
        file = folder / f"segmentations_{number}.png"
        caption = f"{target}: the slice that shows most of the target"
        drawn[caption] = side_by_side(rows, file, classes=drawn_classes(index, target))
        shown += rows
    return [*sections, report.pictures(f"Segmentations{name}", drawn), report.viewers(f"Slice viewer{name}", shown)]
