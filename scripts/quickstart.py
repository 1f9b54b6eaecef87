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
import pandas as pd
from demo_cohort import make_demo_cohort
from validate import data_sets

from swinfuse_components.data import Task, msd_datalist, read_msd_task
from swinfuse_components.data.paths import volume_stem
from swinfuse_components.engines import short_errors
from swinfuse_components.evaluation.matrix import prediction_path
from swinfuse_components.evaluation.report import write_report
from swinfuse_components.evaluation.tables import markdown, paper_cells, read_cases
from swinfuse_components.visualization.slices import CasePicture, side_by_side

NOT_EVIDENCE = """**This is a demonstration, not evidence.** A small network, minutes of training and a handful of
test cases of one simulated brain cannot show what a method is worth, and the settings were chosen by these very scores.
Read every Dice against the mean training mask, which has never seen an image."""


def cohort(output: str) -> None:
    """Make the demonstration cohort; one that is there and finished is kept."""
    make_demo_cohort(output)


def locate(data: str, ct: str = "", mr: str = "") -> None:
    """Print the SynthRAD folder, the CT task and the MRI task below a folder, one a line."""
    root = Path(data).resolve()
    found = data_sets(root)
    pretraining = [path for layout, path in found if layout == "synthrad"]
    if not pretraining:
        sys.exit(f"error: {root}: found no folder with ct.nii.gz and mr.nii.gz, expected SynthRAD's layout")
    tasks = [read_msd_task(path) for layout, path in found if layout == "msd"]
    pairs = [(a, b) for a in _wanted(tasks, "ct", ct) for b in _wanted(tasks, "mr", mr) if a.labels == b.labels]
    if not pairs:
        named = ", ".join(f"{Path(task.dataset_dir).name} ({task.modality})" for task in tasks) or "none"
        sys.exit(f"error: {root}: found the tasks {named}; expected one of CT and one of MRI with the same labels")
    for path in (pretraining[0], *(task.dataset_dir for task in pairs[0])):
        print(path)


def _wanted(tasks: list[Task], modality: str, name: str) -> list[Task]:
    return [task for task in tasks if task.modality == modality and (not name or Path(task.dataset_dir).name == name)]


def progress(every: float = 5.0) -> None:
    """Show the last line of progress bars every few seconds, and results as they come; the rest stays in the log."""
    shown = 0.0
    for line in _lines():
        bar = re.search(r"\S*:?\s*\d+%\|[^|]*\|[^]]*\]", line)
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
    rows = read_cases(root / "evaluation" / "cases.csv")
    table = paper_cells(rows)
    curves = {"pre-training": "pretrain", "plain": "plain", "random contrast": "random_contrast"}
    for name in curves.values():
        shutil.copy(root / name / "losses.png", folder / f"losses_{name}.png")
    pictures = _picture(rows, root, folder / "cases.png")
    lines = [
        "# SwinFUSE quickstart",
        NOT_EVIDENCE,
        f"{table.text}\n\n{markdown(table.header, table.lines)}",
        f"report.html holds all of it. Pictures: {pictures.name} (a case of each modality: image, truth, predictions), "
        + ", ".join(f"losses_{name}.png ({title})" for title, name in curves.items()),
    ]
    write_report(
        str(folder / "report.html"),
        evaluation=str(root / "evaluation"),
        runs={title: str(root / name) for title, name in curves.items()},
        title="SwinFUSE quickstart",
        note=NOT_EVIDENCE.replace("*", ""),
    )
    (folder / "summary.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def _picture(rows: pd.DataFrame, root: Path, path: Path) -> Path:
    """Image, truth, and what each network says, for the first case of each modality."""
    trained = rows[rows["trained_on"] != "-"]
    networks = list(trained[["model", "trained_on", "view"]].drop_duplicates().itertuples(index=False))
    items = _items(root)
    pictures, classes = [], {}
    for target, case in trained.drop_duplicates("target")[["target", "case"]].itertuples(index=False):
        task, item = items[target, case]
        classes = {name: value for value, name in task.labels.items() if value}
        image, truth = nib.load(item["image"]), nib.load(item["label"])
        predictions, dice = {}, {}
        for network in networks:
            file = prediction_path(root / "evaluation", *network, target, case)
            predictions[network[0]] = np.asarray(nib.load(file).dataobj)
            chosen = trained[(trained["model"] == network[0]) & (trained["target"] == target)]
            dice[network[0]] = float(chosen.loc[chosen["case"] == case, "dice"].mean())
        voxels = (np.asarray(image.dataobj), image.affine, np.asarray(truth.dataobj))
        pictures.append(CasePicture(f"{target}\n{case}", *voxels, predictions, dice))
    return side_by_side(pictures, path, classes=classes)


def _items(root: Path) -> dict[tuple[str, str], tuple[Task, dict]]:
    """Every case of the two tasks, by the names that the table of scores gives them."""
    tasks = [read_msd_task(folder) for folder in (root / "logs" / "tasks").read_text(encoding="utf-8").splitlines()[1:]]
    cases = ((task, item) for task in tasks for item in msd_datalist(task.dataset_dir))
    return {(task.name, volume_stem(item["label"])): (task, item) for task, item in cases}


if __name__ == "__main__":
    short_errors()
    fire.Fire({"cohort": cohort, "locate": locate, "progress": progress, "report": report})
