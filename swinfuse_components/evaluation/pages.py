"""The HTML report of an evaluation and of the runs behind it, from the files that they left."""

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
    """Write one HTML file that needs no network and no other file; returns its path.

    ``evaluation`` is the ``output_dir`` of one or several evaluations: their tables, heat map, segmentations side by
    side and a viewer of so many ``cases`` of each column. ``runs`` are folders of trainings, or ``{name: folder}``:
    curves from ``losses.csv`` and ``validation.csv``. ``pictures`` are further PNG files; ``note`` stands below the
    ``title``.

    Raises:
        FileNotFoundError: if an evaluation's folder holds none.
        ValueError: if there is nothing to show.
    """
    if not (evaluation or runs or pictures):
        raise ValueError("a report needs something to show: --evaluation, --runs or --pictures")
    folders = [evaluation] if isinstance(evaluation, str) else evaluation or ()
    named = (
        runs if isinstance(runs, Mapping) else {Path(r).name: r for r in ([runs] if isinstance(runs, str) else runs)}
    )
    files = {Path(f).stem.replace("_", " "): f for f in ([pictures] if isinstance(pictures, str) else pictures)}
    sections: list[dict[str, Any]] = [{"heading": "Note", "text": note}] if note else []
    for folder in map(Path, folders):
        sections += _evaluation_sections(folder, f" ({folder.name})" if len(folders) > 1 else "", cases)
    sections += [report.training_curves("Training curves", named), report.pictures("Pictures", files)]
    written = report.write_page(output, title, [s for s in sections if any(s.get(k) for k in s if k != "heading")])
    logger.info("report: %s", written)
    return str(written)


def _evaluation_sections(folder: Path, name: str, cases: int) -> list[dict[str, Any]]:
    """Tables, heat map, segmentations and viewer of one evaluation."""
    index, content = read_index(folder), json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    sections = [{"heading": f"Tables{name}", "text": content["text"], "tables": content["sections"]}]
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
        caption = f"{target}: the slice that shows most of the target"
        file = folder / f"segmentations_{number}.png"
        drawn[caption] = side_by_side(rows, file, classes=drawn_classes(index, target))
        shown += rows
    return [*sections, report.pictures(f"Segmentations{name}", drawn), report.viewers(f"Slice viewer{name}", shown)]
