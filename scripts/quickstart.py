"""The parts of quickstart.sh that a shell does badly: find the data, show progress, make the table and the pictures."""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fire
import nibabel as nib
import numpy as np

from swinfuse_components.data import MSDTask, msd_datalist, read_msd_task
from swinfuse_components.evaluation.matrix import prediction_path
from swinfuse_components.evaluation.records import CaseTable, Row
from swinfuse_components.evaluation.tables import paper_cells
from swinfuse_components.evaluation.targets import case_name
from swinfuse_components.visualization.style import blank_axes, class_colour, new_figure, save_figure

NOT_EVIDENCE = """**This is a demonstration, not evidence.** A small network, minutes of training and a handful of
test cases cannot show what pre-training or the domain invariance module is worth. Read every Dice against the mean
training mask, which has never seen an image."""


def locate(data: str, ct: str = "", mr: str = "") -> None:
    """Print the SynthRAD folder, the CT task and the MRI task below a folder, one a line."""
    root = Path(data).resolve()
    cases = sorted(path.parent for path in root.glob("**/ct.nii.gz") if (path.parent / "mr.nii.gz").is_file())
    if not cases:
        sys.exit(f"error: {root}: found no folder with ct.nii.gz and mr.nii.gz, expected SynthRAD's layout")
    tasks = [read_msd_task(path.parent) for path in sorted(root.glob("**/dataset.json"))]
    pairs = [(a, b) for a in _wanted(tasks, "ct", ct) for b in _wanted(tasks, "mr", mr) if a.labels == b.labels]
    if not pairs:
        found = ", ".join(f"{Path(task.dataset_dir).name} ({task.modality})" for task in tasks) or "none"
        sys.exit(f"error: {root}: found the tasks {found}; expected one of CT and one of MRI with the same labels")
    for path in (cases[0].parents[2], *(task.dataset_dir for task in pairs[0])):
        print(path)


def _wanted(tasks: list[MSDTask], modality: str, name: str) -> list[MSDTask]:
    return [task for task in tasks if task.modality == modality and (not name or Path(task.dataset_dir).name == name)]


def progress(every: float = 5.0) -> None:
    """Show the last line of progress bars every few seconds, and results as they come; the rest stays in the log."""
    shown = 0.0
    for line in _lines():
        bar = re.search(r"\S*:?\s*\d+%\|[^|]*\|.*", line)
        result = re.search(r"Key metric: .*", line)
        if result:
            print(f"   {result.group()}", flush=True)
        elif bar and time.monotonic() - shown >= every:
            shown = time.monotonic()
            print(f"   {bar.group()[:110]}", flush=True)


def _lines() -> Iterator[str]:
    for chunk in sys.stdin:
        yield from chunk.split("\r")


def report(output: str) -> None:
    """Write `report/summary.md`, the loss curves and one case of each modality with truth and predictions."""
    root = Path(output)
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    rows = CaseTable(root / "evaluation" / "cases.csv").rows
    curves = {"pre-training": "pretrain", "SwinFUSE": "swinfuse", "Swin UNETR": "swin_unetr"}
    for name in curves.values():
        shutil.copy(root / name / "losses.png", folder / f"losses_{name}.png")
    pictures = _picture(rows, root, folder / "cases.png")
    lines = [
        "# SwinFUSE quickstart",
        NOT_EVIDENCE,
        paper_cells(rows),
        f"Pictures: {pictures.name} (one case of each modality: image, truth, predictions); "
        + ", ".join(f"losses_{name}.png ({title})" for title, name in curves.items()),
    ]
    (folder / "summary.md").write_text("\n\n".join(lines) + "\n")


def _picture(rows: list[Row], root: Path, path: Path) -> Path:
    """Middle slice of the target: image, truth, and what each network says, for the first case of each modality."""
    networks = list(dict.fromkeys((row.model, row.trained_on, row.view) for row in rows if row.trained_on != "-"))
    cases = {row.target: row for row in reversed(rows) if row.trained_on != "-"}
    figure, axes = new_figure(len(cases), 2 + len(networks))
    for line, row in zip(axes, cases.values()):
        item = _item(root, row)
        image, truth = (np.asarray(nib.load(item[key]).dataobj) for key in ("image", "label"))
        image = image if image.ndim == 3 else image[..., 0]
        level = int(np.argmax((truth > 0).sum((0, 1))))
        maps = {"truth": truth}
        for network in networks:
            file = prediction_path(root / "evaluation", *network, row.target, row.case)
            maps[network[0]] = np.asarray(nib.load(file).dataobj) if file.is_file() else np.zeros_like(truth)
        shown: dict[str, np.ndarray] = {row.target: np.zeros_like(truth), **maps}
        for ax, (title, labels) in zip(line, shown.items()):
            dark, bright = np.percentile(image, (1, 99))
            ax.imshow(np.rot90(image[:, :, level]), cmap="gray", vmin=dark, vmax=bright)
            for value in range(1, int(truth.max()) + 1):
                shape = np.rot90(labels[:, :, level] == value)
                if shape.any():
                    ax.contour(shape, levels=[0.5], colors=[class_colour(value)], linewidths=1)
            dice = [r.dice for r in rows if (r.model, r.target, r.case) == (title, row.target, row.case)]
            ax.set_title(title + (f"\nDice {np.nanmean(dice):.2f}" if dice else ""), fontsize=8)
        blank_axes(line)
    return save_figure(figure, path)


def _item(root: Path, row: Row) -> dict:
    tasks = (root / "logs" / "tasks").read_text().splitlines()[1:]
    for folder in tasks:
        for item in msd_datalist(folder):
            if case_name(item) == row.case and row.target.startswith(read_msd_task(folder).name):
                return item
    raise FileNotFoundError(f"case {row.case} of {row.target}: found in none of {tasks}")


if __name__ == "__main__":
    fire.Fire({"locate": locate, "progress": progress, "report": report})
