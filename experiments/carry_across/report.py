"""Tables and curve of docs/carry_across.md from the scores of each case.

    python experiments/carry_across/report.py add OUT --arm "random contrast" --steps 300 --at_test matched
    python experiments/carry_across/report.py table
    python experiments/carry_across/report.py curve docs/images/carry_across.png

`add` takes the `cases.csv` of an out-of-distribution evaluation into `results.csv`; `curves.csv` holds the mean Dice on
CT and MRI in the course of the trainings (MRI for display only: nothing was chosen by it).
"""

from __future__ import annotations

from pathlib import Path

import fire
import matplotlib.pyplot as plt
import pandas as pd

from swinfuse_components.evaluation.tables import markdown

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.csv"
COLUMNS = ["arm", "steps", "at_test", "tested_on", "case", "structure", "dice"]
ORGANS = ["liver", "right kidney", "left kidney", "spleen"]


def add(folder: str, arm: str = "", steps: int = 0, at_test: str = "") -> None:
    """Put the scores of an evaluation under the name of an arm, or of each model, in place of what stood there."""
    cases = pd.read_csv(Path(folder) / "cases.csv").rename(columns={"target": "tested_on", "label": "structure"})
    trivial = cases["trained_on"].isna() | cases["trained_on"].isin(["", "-"])
    cases["arm"] = cases["model"] if not arm else cases["model"].where(trivial, arm)
    cases["steps"] = (~trivial).astype(int) * steps
    cases["at_test"] = at_test
    cases.loc[trivial, "at_test"] = ""
    cases = cases[COLUMNS].round({"dice": 4})
    old = pd.read_csv(RESULTS, keep_default_na=False) if RESULTS.is_file() else cases[:0]
    both = pd.concat([old, cases]).drop_duplicates([*COLUMNS[:-1]], keep="last")
    both.to_csv(RESULTS, index=False)


def table() -> None:
    """Print the mean Dice of every arm, as markdown."""
    results = pd.read_csv(RESULTS, keep_default_na=False).astype({"dice": float})
    rows = []
    for (arm, steps, at_test), part in results.groupby(["arm", "steps", "at_test"], sort=False):
        means = part.groupby(["tested_on", "structure"])["dice"].mean()
        cells = [means.get("AbdomenCT"), means.get("AbdomenMR")]
        if not any(cell is not None for cell in cells):
            continue
        texts = ["" if cell is None else f"{cell.mean():.3f}" for cell in cells]
        organs = "" if cells[1] is None else ", ".join(f"{cells[1][organ]:.2f}" for organ in ORGANS)
        rows.append([arm, str(steps or ""), at_test, *texts, organs])
    print(markdown(["trained with", "steps", "at test time", "CT", "MRI", f"MRI: {', '.join(ORGANS)}"], rows))


def curve(output: str) -> None:
    """Draw the curves over the training."""
    curves = pd.read_csv(HERE / "curves.csv")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, modality in zip(axes, ("CT", "MRI"), strict=True):
        for arm, part in curves.groupby("arm", sort=False):
            axis.plot(part["step"], part[modality], marker="o", markersize=3, label=arm)
        axis.set(title=f"{modality}, mean of four organs", xlabel="step", ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Dice")
    axes[0].legend(fontsize=8)
    figure.savefig(output, dpi=90)


if __name__ == "__main__":
    fire.Fire({"add": add, "table": table, "curve": curve})
