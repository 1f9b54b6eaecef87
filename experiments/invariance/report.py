"""Tables of docs/invariance.md from the CSV files of this folder.

python experiments/invariance/report.py probing "GPU, 320 s"
python experiments/invariance/report.py finetuning "CPU, 300 steps" liver
python experiments/invariance/report.py picture docs/images/invariance_mri.png
"""

from __future__ import annotations

from pathlib import Path

import fire
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from swinfuse_components.evaluation.tables import interval, markdown

HERE = Path(__file__).resolve().parent
TERMS = {
    "influence": "influence",
    "shuffled_accuracy": "finds the shuffled partner",
    "contrastive_accuracy": "finds the other view",
    "dense": "dense loss",
}


def _chosen(scores: pd.DataFrame, dataset: str, probe: str, stage: str) -> pd.DataFrame:
    return scores[(scores["dataset"] == dataset) & (scores["probe"] == probe) & (scores["stage"] == stage)]


def _column(probe: str, stage: str) -> str:
    return f"{probe}, {'all stages' if stage == 'all' else f'stage {stage}'}"


def _by_seed(scores: pd.DataFrame, encoder: str) -> np.ndarray:
    """Mean Dice over the classes: (seeds, cases)."""
    own = scores[scores["encoder"] == encoder]
    return own.pivot_table(index="seed", columns="case", values="dice").to_numpy()


def difference(first: np.ndarray, second: np.ndarray, resamples: int = 9999) -> tuple[float, float, float]:
    """Mean difference of two (seeds, cases), with its 95 % bootstrap interval over cases and the seeds of both."""
    rng = np.random.default_rng(0)
    cases = rng.integers(first.shape[1], size=(resamples, 1, first.shape[1]))
    means = []
    for values in (first, second):
        seeds = rng.integers(len(values), size=(resamples, len(values), 1))
        means.append(values[seeds, cases].mean((1, 2)))
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(first.mean() - second.mean()), float(low), float(high)


def probing(
    run: str, stages: tuple[str, ...] = ("3", "all"), references: tuple[str, ...] = ("random", "paper's letter")
) -> None:
    """Print what each arm of a ``run`` came to, MRI against the references, and what was measured beside."""
    scores = pd.read_csv(HERE / "probing.csv", dtype={"stage": str}).query("run == @run")
    last = pd.read_csv(HERE / "validation.csv").query("run == @run").groupby("encoder").last()
    kinds = [(probe, stage) for probe in ("linear", "neighbours") for stage in stages]
    where = [_column(probe, stage) for probe, stage in kinds]

    lines = []
    for name, part in scores.groupby("encoder", sort=False):
        row = last.loc[name] if name in last.index else {}
        cells = ["" if pd.isna(row.get(term)) else f"{row[term]:.3g}" for term in TERMS]
        for data in ("AbdomenCT", "AbdomenMR"):
            for probe in ("linear", "neighbours"):
                seeds = _chosen(part, data, probe, "all").groupby("seed")["dice"].mean()
                spread = f" ({seeds.min():.3f} to {seeds.max():.3f})" if len(seeds) > 1 else ""
                cells.append(f"{seeds.mean():.3f}{spread}")
        lines.append([name, str(part["seed"].nunique()), *cells])
    header = ["arm", "seeds", *TERMS.values(), "CT, linear", "CT, neighbours", "MRI, linear", "MRI, neighbours"]
    print(markdown(header, lines))

    for reference in references:
        if reference not in set(scores["encoder"]):
            continue
        lines = []
        for name, part in scores.groupby("encoder", sort=False):
            cells = []
            for probe, stage in kinds:
                chosen = _chosen(scores, "AbdomenMR", probe, stage)
                ours, theirs = _by_seed(chosen, str(name)), _by_seed(chosen, reference)
                text = f"{ours.mean():.3f}" if name == reference else interval(*difference(ours, theirs), 3)
                cells.append(text)
            lines.append([name, str(part["seed"].nunique()), *cells])
        print(markdown([f"MRI: minus {reference}", "seeds", *where], lines))

    measures = pd.read_csv(HERE / "measures.csv").query("run == @run").drop(columns="run")
    if len(measures):
        means = measures.drop(columns=["seed", "places"]).groupby("arm", sort=False).mean()
        text = [[name, *("" if pd.isna(x) else f"{x:.3g}" for x in row)] for name, row in means.iterrows()]
        print(markdown(["arm", *means.columns], text))


#: names of the arms of arms.py in the page, in its order
ARMS = {"random": "random weights", "paper": "paper's letter", "swinfuse": "pretext tasks", "no_dim": "no module"}
ARMS |= {"two_contrasts": "two contrasts", "dense": "dense", "dense_pairs": "dense_pairs", "synthetic": "synthetic"}


def finetuning(run: str, *structures: str, cases: str = str(HERE / "finetuning.csv")) -> None:
    """Print the mean Dice of ``structures``, all if none is named, for each task, recipe and number of labelled CT.

    Args:
        run: name of the run.
        structures: names of classes.
        cases: the table of ``finetune.py collect``.
    """
    scores = pd.read_csv(cases, dtype={"labelled": str}).query("run == @run")
    scores = scores[scores["class"].isin(structures or scores["class"].unique())]
    # the first word of a data set's name: Abdomen, Sarcoma
    scores["task"] = scores["target"].str.extract(r"(^[A-Z][a-z]+)", expand=False)
    for (task, recipe, labelled), part in scores.groupby(["task", "recipe", "labelled"]):
        header, lines = [f"{task}, {recipe}, {labelled} CT", "seeds"], []
        for arm in (arm for arm in ARMS if arm in set(part["encoder"])):
            cells = []
            for target in (here := part[part["encoder"] == arm])["target"].unique():
                chosen = part[part["target"] == target]
                ours, theirs = _by_seed(chosen, arm), _by_seed(chosen, "random")
                spread = f" ({ours.mean(1).min():.3f} to {ours.mean(1).max():.3f})" if len(ours) > 1 else ""
                cells += [f"{ours.mean():.3f}{spread}"]
                cells += ["" if arm == "random" else interval(*difference(ours, theirs), 3)]
                if (name := target.removeprefix(task)) not in header:
                    header += [name, "minus random weights"]
            lines.append([ARMS[arm], str(here["seed"].nunique()), *cells])
        print(markdown(header, lines))


def picture(target: str) -> None:
    """Draw what the larger pre-trainings give on MRI, minus random weights, with 95 % intervals."""
    probes = pd.read_csv(HERE / "probing.csv", dtype={"stage": str}).query("run == 'GPU, 600 steps'")
    tuned = pd.read_csv(HERE / "finetuning.csv", dtype={"labelled": str}).query("run == 'GPU, 440 steps'")
    panels: dict[str, pd.DataFrame] = {
        f"frozen:\n{_column(probe, stage)}": _chosen(probes, "AbdomenMR", probe, stage)
        for probe in ("linear", "neighbours")
        for stage in ("3", "all")
    }
    for recipe in ("random_contrast", "plain"):
        chosen = tuned[(tuned["recipe"] == recipe) & (tuned["target"] == "AbdomenMR")]
        panels[f"fine-tuned:\n{recipe}"] = chosen.replace({"encoder": ARMS | {"random": "random"}})
    arms = ["paper's letter", "pretext tasks", "dense", "dense_pairs"]
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 2.4), sharey=True, layout="constrained")
    for axis, (title, scores) in zip(axes, panels.items()):
        for row, arm in enumerate(arms):
            mean, low, high = difference(_by_seed(scores, arm), _by_seed(scores, "random"))
            colour = "tab:green" if low > 0 else "tab:red" if high < 0 else "gray"
            axis.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(arms)), arms)
        axis.margins(y=0.2)
    axes[0].invert_yaxis()
    figure.supxlabel("Dice on MRI minus that of random weights, 95 % interval over cases and seeds", fontsize=9)
    figure.savefig(target, dpi=120)


if __name__ == "__main__":
    fire.Fire({"probing": probing, "finetuning": finetuning, "picture": picture})
