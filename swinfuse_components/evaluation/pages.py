"""The report of an evaluation and of the runs behind it, from the files that they left."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..visualization.report import Report
from ..visualization.segmentations import side_by_side
from .gallery import drawn_classes, gallery, read_index

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
        note: a sentence or two below it, Markdown.
        cases: of each column, so many are shown.

    Returns:
        path of the file.

    Raises:
        FileNotFoundError: if an evaluation's folder holds none.
    """
    report = Report(title)
    if note:
        report.add_markdown("Note", note)
    folders = [evaluation] if isinstance(evaluation, (str, Path)) else list(evaluation or ())
    for folder in map(Path, folders):
        name = f" ({folder.name})" if len(folders) > 1 else ""
        index = read_index(folder)
        page = (folder / "summary.md").read_text(encoding="utf-8")
        report.add_markdown(f"Tables{name}", "\n".join(page.splitlines()[1:]))
        if (folder / "matrix.png").is_file():
            report.add_pictures(
                f"Heat map{name}", {"Mean Dice of every model on every data set": folder / "matrix.png"}
            )
        drawn, shown = {}, []
        for number, target in enumerate(index["targets"]):
            try:
                rows = gallery(folder, target, count=cases)
            except (OSError, ValueError) as error:  # a picture less is no reason to write no report
                logger.warning("no pictures of %s: %s", target, error)
                continue
            drawn[f"{target}: the slice that shows most of the target"] = side_by_side(
                rows, folder / f"segmentations_{number}.png", classes=drawn_classes(index, target)
            )
            shown += rows
        if drawn:
            report.add_pictures(f"Segmentations{name}", drawn)
            report.add_viewer(f"Slice viewer{name}", shown)
    named = (
        runs if isinstance(runs, Mapping) else {Path(r).name: r for r in ([runs] if isinstance(runs, str) else runs)}
    )
    report.add_runs("Training curves", named)
    files = [pictures] if isinstance(pictures, str) else list(pictures)
    if files:
        report.add_pictures("Pictures", {Path(file).stem.replace("_", " "): file for file in files})
    written = report.write(output)
    logger.info("report: %s", written)
    return str(written)
