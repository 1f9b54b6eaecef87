"""Tables of docs/invariance.md from probing.csv and validation.csv of this folder.

python experiments/invariance/report.py "GPU, 320 s"
"""

from __future__ import annotations

from pathlib import Path

import fire
import pandas as pd

from swinfuse_components.evaluation.probing import summarize_probing
from swinfuse_components.evaluation.tables import interval, markdown

HERE = Path(__file__).resolve().parent


def main(run: str, probe: str = "neighbours", stages: tuple[str, ...] = ("3", "all")) -> None:
    """Print what each seed of each arm of a ``run`` came to, then MRI against random weights, with intervals."""
    scores = pd.read_csv(HERE / "probing.csv", dtype={"stage": str}).query("run == @run")
    curves = pd.read_csv(HERE / "validation.csv").query("run == @run")
    last = curves.groupby(["encoder", "seed"]).last()
    means = scores.groupby(["encoder", "seed", "dataset", "probe", "stage"], sort=False)["dice"].mean()
    lines = []
    for name, seed in means.index.droplevel([2, 3, 4]).unique():
        dice = [
            f"{means[(name, seed, data, kind, 'all')]:.3f}"
            for data in ("AbdomenCT", "AbdomenMR")
            for kind in ("linear", "neighbours")
        ]
        row = last.loc[(name, seed)] if (name, seed) in last.index else {}
        terms = ["influence", "shuffled_accuracy", "contrastive_accuracy", "dense"]
        figures = ["" if pd.isna(row.get(term)) else f"{row[term]:.3g}" for term in terms]
        lines.append([name, str(seed), str(int(row["iteration"])) if len(row) else "", *figures, *dice])
    header = ["arm", "seed", "validated after", "influence", "finds the shuffled partner", "finds the other view"]
    header += ["dense loss", "CT, linear", "CT, neighbours", "MRI, linear", "MRI, neighbours"]
    print(markdown(header, lines))
    summary = summarize_probing(scores, "random").query("dataset == 'AbdomenMR'")
    lines = []
    for name, part in summary.groupby("encoder", sort=False):
        cells = [
            part.query("probe == @kind and stage == @stage").iloc[0] for kind in ("linear", probe) for stage in stages
        ]
        texts = [
            f"{r['dice']:.3f}"
            if name == "random"
            else interval(r["difference"], r["difference_low"], r["difference_high"], 3)
            for r in cells
        ]
        lines.append([name, str(cells[0]["seeds"]), *texts])
    where = [f"{kind}, {'all stages' if s == 'all' else f'stage {s}'}" for kind in ("linear", probe) for s in stages]
    print(markdown(["MRI: minus random", "seeds", *where], lines))


if __name__ == "__main__":
    fire.Fire(main)
