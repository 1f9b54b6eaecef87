"""Tables of docs/invariance.md from probing.csv and measures.csv of this folder.

python experiments/invariance/report.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from swinfuse_components.evaluation.probing import summarize_probing
from swinfuse_components.evaluation.tables import interval, markdown

HERE = Path(__file__).resolve().parent
COLUMNS = [("AbdomenCT", "linear"), ("AbdomenMR", "linear"), ("AbdomenMR", "neighbours")]


def main() -> None:
    """Print probing with all stages together, the linear probe on MRI by stage, and the measures on pairs."""
    scores = pd.read_csv(HERE / "probing.csv", dtype={"stage": str})
    summary = summarize_probing(scores, "random")
    against = summarize_probing(scores, "paper").set_index(["encoder", "dataset", "probe", "stage"])
    by = summary.set_index(["encoder", "dataset", "probe", "stage"]).sort_index()
    names = list(summary["encoder"].unique())
    lines = []
    for name in names:
        cells = [by.loc[(name, *column, "all")] for column in COLUMNS]
        texts = [interval(r["dice"], r["low"], r["high"], 3) for r in cells]
        differences = [table.loc[(name, "AbdomenMR", "linear", "all")] for table in (by.sort_index(), against)]
        texts += [
            "" if pd.isna(r["difference"]) else interval(r["difference"], r["difference_low"], r["difference_high"], 3)
            for r in differences
        ]
        lines.append([name, str(cells[0]["seeds"]), *texts])
    header = ["encoder", "seeds", "CT, linear", "MRI, linear", "MRI, neighbours"]
    print(markdown([*header, "MRI, linear: minus random", "minus the paper's letter"], lines))
    stages = ["0", "1", "2", "3", "4", "all"]
    rows = [[name, *(f"{by.loc[(name, 'AbdomenMR', 'linear', s)]['dice']:.3f}" for s in stages)] for name in names]
    print(markdown(["MRI, linear", *(f"stage {s}" for s in stages[:-1]), "all"], rows))
    measures = pd.read_csv(HERE / "measures.csv")
    means = measures.groupby(["arm", "state"], sort=False)[["influence", "cka", "same_modality"]].mean().unstack()
    rows = [
        [
            arm,
            *(
                f"{row[(what, state)]:.4g}"
                for what in ("influence", "cka", "same_modality")
                for state in ("before", "after")
            ),
        ]
        for arm, row in means.iterrows()
    ]
    print(
        markdown(
            ["arm", *(f"{w}, {s}" for w in ("influence", "CKA", "same modality") for s in ("before", "after"))], rows
        )
    )


if __name__ == "__main__":
    main()
