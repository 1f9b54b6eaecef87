"""Tables and pictures of `docs/results.md`, from the scores in `experiments/results.csv`.

    python experiments/report.py write            every table and picture, into docs/results.md and docs/images
    python experiments/report.py table main       one table to the screen: main, contrasts, position, …

What stands between `<!-- table: NAME -->` and `<!-- end -->` on that page this program writes.
Patients are the unit: seeds are averaged within a patient, and two rows are compared on the patients that both have.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import fire
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from run import HERE, RESULTS, TERMS, read_matrix
from scipy import stats

from swinfuse_components.evaluation.statistics import PairedTest, holm, paired_test, summarize
from swinfuse_components.evaluation.tables import markdown

PAGE = HERE.parent / "docs" / "results.md"
IMAGES = PAGE.parent / "images"
MODALITIES = {"ct": "CT", "mr": "MRI"}
#: What is tested, a structure in a modality, with the heading of its column.
TESTS = {(s, m): f"{s} in {name}" for s in read_matrix()["structures"] for m, name in MODALITIES.items()}
#: What table 6 tests: all the foreground of a task.
UNIONS = {
    "ct": "sarcoma and bone in CT",
    "head_neck": "head and neck in CT",
    "mr": "sarcoma and bone in MRI",
    "hippocampus": "hippocampus in MRI",
}
#: Pre-trainings in which the density term differs, by its weight, bandwidth, views or gate.
DENSITIES = ("swinfuse", "paper", "swinfuse_contrasts", "density_zero", "density_minus", "density_paper_bandwidth")
DENSITIES += ("pairs", "gate_product")
Interval = tuple[float, float, float]


@functools.cache
def read_scores() -> dict[tuple[str, str, str], pd.Series]:
    """Dice by row, structure and modality: a series over (patient, fold, seed), without undefined scores.

    A row is an arm, `arm/view` for a view other than its own, or `arm: name` for the trivial baselines.
    """
    arms, table = read_matrix()["arms"], pd.read_csv(RESULTS)
    table["of"] = table["arm"]
    trivial = table["arm"].map(lambda arm: bool(arms[arm].get("trivial")))
    own = table["arm"].map(lambda arm: arms[arm].get("views", [None])[0])
    other = ~trivial & own.notna() & (own != table["view"])
    table.loc[trivial, "of"] += ": " + table["row"]
    table.loc[other, "of"] += "/" + table["view"]
    groups = table.dropna(subset="dice").groupby(["of", "structure", "tested_on"], sort=False)
    return {key: group.set_index(["patient", "fold", "seed"])["dice"] for key, group in groups}


def scores_of(row: str | None, test: tuple[str, str], *, one_seed: bool = False) -> pd.Series:
    """The scores of one row in one test, empty where it has none; the first seed's alone where others have no more."""
    found = read_scores().get((str(row), *test))
    if found is None:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_tuples([], names=["patient", "fold", "seed"]))
    return found[found.index.get_level_values("seed") == read_matrix()["seeds"][0]] if one_seed else found


def means(scores: pd.Series) -> pd.Series:
    """Mean over the seeds for each patient."""
    return scores.groupby("patient", sort=False).mean()


def seeds_of(scores: pd.Series) -> int:
    """Least number of seeds of a patient."""
    return int(scores.groupby("patient").size().min()) if len(scores) else 0


def shared_means(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    """Means of both, columns 0 and 1 over (patient, fold), for the patients and over the seeds that both have."""
    both = pd.concat([first, second], axis=1, keys=[0, 1], join="inner")
    return both.groupby(["patient", "fold"]).mean()


def compare(first: pd.Series, second: pd.Series) -> PairedTest:
    """First minus second over the patients."""
    both = shared_means(first, second)
    return paired_test(both[0].to_numpy(), both[1].to_numpy(), method="permutation")


def difference(first: pd.Series, second: pd.Series) -> Interval:
    """Mean of first minus second over patients, with a 95 % t interval over the folds (NaN for fewer than two).

    The networks of a fold are its own, so the spread between folds holds what patients and trainings add; over
    patients alone the noise of a training, common to all patients of its fold, would be missed.
    """
    both = shared_means(first, second)
    differences = both[0] - both[1]
    folds = differences.groupby("fold").mean()
    if len(folds) < 2:
        return float(differences.mean()), float("nan"), float("nan")
    if np.ptp(folds) == 0:
        return float(differences.mean()), float(folds.iloc[0]), float(folds.iloc[0])
    low, high = stats.t.interval(0.95, len(folds) - 1, folds.mean(), stats.sem(folds))
    return float(differences.mean()), float(low), float(high)


def arm_of(row: str) -> str:
    """The arm that a row belongs to."""
    return re.split("/|:", row)[0]


def title(row: str) -> str:
    """Heading of a row."""
    arm, *rest = re.split(r"/|: ", row, maxsplit=1)
    text = read_matrix()["arms"][arm]["title"]
    return text if not rest else f"{text}, {rest[0]} at test time" if "/" in row else rest[0]


def rows_of(table: str, *, without_image: bool | None = None) -> list[str]:
    """Rows of a table in the plan's order; of table 1 those that look at the image, or those that do not."""
    arms = read_matrix()["arms"]
    plain = ("trivial", "blank", "silhouette")
    rows = [r for r in dict.fromkeys(key[0] for key in read_scores()) if arms[arm_of(r)].get("table", "main") == table]
    rows = [r for r in rows if without_image is None or (arm_of(r) in plain) == without_image]
    return sorted(rows, key=lambda row: list(arms).index(arm_of(row)))


def _interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _summary(scores: pd.Series) -> str:
    return _interval(*summarize(means(scores).to_numpy())[:3]) if len(scores) else "-"


def _difference(own: pd.Series, first: pd.Series) -> str:
    mean, low, high = difference(own, first)
    return f"{mean:+.2f} ({'one fold' if np.isnan(low) else f'{low:+.2f} to {high:+.2f}'})"


def _score_table(rows: Sequence[str], first_column: str) -> str:
    lines = []
    for row in rows:
        found = [scores_of(row, test) for test in TESTS]
        patients = {patient for scores in found for patient in scores.index.get_level_values("patient")}
        seeds = min((seeds_of(scores) for scores in found if len(scores)), default=0)
        lines.append([title(row), *map(_summary, found), str(len(patients)), str(seeds)])
    return markdown([first_column, *TESTS.values(), "patients", "seeds"], lines)


def main() -> str:
    """Table 1: mean Dice of every arm, in distribution and out of it."""
    return _score_table(rows_of("main", without_image=False), "model, fine-tuned on CT unless said")


def position() -> str:
    """What can be had without looking at the image."""
    return _score_table(rows_of("main", without_image=True), "row")


def floor() -> str:
    """Every row of table 1 minus the best row that does not look at the image, with its interval over patients."""
    lines: dict[str, list[str]] = {row: [] for row in rows_of("main", without_image=False)}
    columns = []
    for test, tested_on in TESTS.items():
        plain = {row: means(scores_of(row, test)) for row in rows_of("main", without_image=True)}
        best = max((row for row in plain if len(plain[row])), key=lambda row: plain[row].mean())
        columns.append(f"{tested_on} ({title(best)}: {plain[best].mean():.2f})")
        for row, line in lines.items():
            both = pd.concat([means(scores_of(row, test)), plain[best]], axis=1, keys=[0, 1], join="inner").sort_index()
            gain = paired_test(both[0].to_numpy(), both[1].to_numpy(), method="permutation")
            text = _interval(gain.difference, gain.low, gain.high, "+")
            line.append(f"**{text}**" if gain.low > 0 else text)
    return markdown(["model minus baseline", *columns], [[title(row), *line] for row, line in lines.items()])


def ablations() -> str:
    """Table 2: one thing changed in pre-training, with the difference and its interval over folds."""
    reference = read_matrix()["ablations_of"]
    lines = []
    for arm in (a for a, s in read_matrix()["arms"].items() if a == reference or s.get("table") == "ablations"):
        line, patients = [title(arm)], set()
        for test in TESTS:
            own, first = (scores_of(row, test, one_seed=True) for row in (arm, reference))
            text = f"{means(own).mean():.2f}" if len(own) else "-"
            line.append(f"{text}; {_difference(own, first)}" if len(own) and len(first) and arm != reference else text)
            patients |= set(own.index.get_level_values("patient"))
        lines.append([*line, str(len(patients))])
    return markdown(["pre-training", *TESTS.values(), "patients"], lines)


def few_label_scores() -> tuple[list[int | None], dict[str, dict[tuple[str, str], list[pd.Series]]]]:
    """Numbers of training cases (None: all), and for each model and test the scores with each, one seed."""
    matrix = read_matrix()
    arms = {a: s for a, s in matrix["arms"].items() if s.get("table") == "few_labels" or a in matrix["few_labels_of"]}
    counts = [*sorted({s["cases"] for s in arms.values() if "cases" in s}), None]
    columns = {}
    for name in map(title, matrix["few_labels_of"]):
        own = {s.get("cases"): arm for arm, s in arms.items() if s["title"] == name}
        columns[name] = {test: [scores_of(own[n], test, one_seed=True) for n in counts] for test in TESTS}
    return counts, columns


def few_labels() -> str:
    """Table 4: Dice by the number of training cases on the same patients, and what pre-training adds to it."""
    counts, columns = few_label_scores()
    lines = []
    for name, tests in columns.items():
        for test, found in tests.items():
            patient_sets = [set(scores.index.get_level_values("patient")) for scores in found if len(scores)]
            shared = set.intersection(*patient_sets) if patient_sets else set()
            cells = [scores[scores.index.get_level_values("patient").isin(shared)] for scores in found]
            lines.append([name, TESTS[test], *map(_summary, cells), str(len(shared))])
    scratch, pretrained = columns.values()
    for test, tested_on in TESTS.items():
        line, most = ["the second minus the first", tested_on], 0
        for first, second in zip(scratch[test], pretrained[test]):
            interval = difference(second, first)
            line.append("-" if np.isnan(interval[1]) else _interval(*interval, "+"))
            most = max(most, len(shared_means(first, second)))
        lines.append([*line, str(most)])
    titles = [f"{n} cases" for n in counts if n is not None]
    return markdown(["model", "tested on", *titles, "all cases", "patients"], lines)


def longer() -> str:
    """Table 5: more steps of fine-tuning, beside the usual number on the same patients and seed."""
    lines = []
    for arm, settings in read_matrix()["arms"].items():
        if settings.get("table") != "longer":
            continue
        for test, tested_on in TESTS.items():
            more, usual = (scores_of(row, test, one_seed=True) for row in (arm, settings["than"]))
            both = shared_means(usual, more)
            cells = [_interval(*summarize(both[k].to_numpy())[:3]) if len(both) else "-" for k in (0, 1)]
            gain = f"{difference(more, usual)[0]:+.2f}" if len(both) else "-"
            lines.append([settings["title"], tested_on, str(settings["steps"]), str(len(both)), *cells, gain])
    columns = ["steps", "patients", "Dice after the usual steps", "Dice after these", "difference"]
    return markdown(["model", "tested on", *columns], lines)


def union() -> str:
    """Table 6: other organs by the union of the foreground, with differences and their intervals as in table 2."""
    arms, lines = read_matrix()["arms"], []
    for row in rows_of("union"):
        settings = arms[arm_of(row)]
        trained = {**settings, **arms.get(settings.get("of"), {})}
        line = ["-" if trained.get("trivial") else UNIONS[trained.get("trained_on", "ct")], title(row)]
        for target in UNIONS:
            own, first = (scores_of(name, ("foreground", target)) for name in (row, settings.get("than")))
            text = f"{_summary(own)}, {len(means(own))} cases" if len(own) else "-"
            line.append(f"{text}; {_difference(own, first)}" if len(own) and len(first) else text)
        lines.append(line)
    return markdown(["trained on", "model", *UNIONS.values()], lines)


def verdict(test: PairedTest, p_corrected: float, over_folds: Interval) -> str:
    """What a comparison allows to be said: a direction only where test and both intervals agree on it."""
    if test.cases < 2 or np.isnan(p_corrected):
        return "not measured"
    if p_corrected < 0.05 and test.low > 0 and over_folds[1] > 0:
        return "**higher**"
    if p_corrected < 0.05 and test.high < 0 and over_folds[2] < 0:
        return "**lower**"
    return "not resolved"


@functools.cache
def contrast_tests() -> list[dict[str, Any]]:
    """Every contrast of `matrix.yaml` in every test, corrected by Holm over all of them."""
    found: list[dict[str, Any]] = []
    for contrast in read_matrix()["contrasts"]:
        for key, tested_on in TESTS.items():
            first, second = (scores_of(contrast[side], key) for side in ("first", "second"))
            entry = {"test": compare(first, second), "over_folds": difference(first, second)}
            seeds = min(seeds_of(first), seeds_of(second))
            found.append({**entry, "question": contrast["question"], "tested_on": tested_on, "seeds": seeds})
    for entry, p in zip(found, holm([entry["test"].p_value for entry in found])):
        entry |= {"p": p, "verdict": verdict(entry["test"], p, entry["over_folds"])}
    return found


def contrasts() -> str:
    """What each ingredient gave: differences of Dice on the same patients."""
    lines = []
    for entry in contrast_tests():
        test, (_, low, high) = entry["test"], entry["over_folds"]
        measured = test.cases > 1
        over_patients = _interval(test.difference, test.low, test.high, "+") if measured else "-"
        over_folds = "-" if np.isnan(low) else f"{low:+.2f} to {high:+.2f}"
        p = ("<0.001" if entry["p"] < 0.001 else f"{entry['p']:.3f}") if measured else "-"
        line = [entry["question"], entry["tested_on"], over_patients, over_folds, p]
        lines.append([*line, f"{test.cases} / {entry['seeds']}", entry["verdict"]])
    columns = ["difference of Dice (over patients)", "interval over folds", "p (Holm)", "patients / seeds", "verdict"]
    return markdown(["what it gave", "tested on", *columns], lines)


def summary() -> str:
    """Every contrast in one line: difference of Dice with its interval over folds, bold where a direction is named."""
    lines: dict[str, list[str]] = {}
    for entry in contrast_tests():
        _, low, high = entry["over_folds"]
        text = "-" if np.isnan(low) else _interval(entry["test"].difference, low, high, "+")
        named = "higher" in entry["verdict"] or "lower" in entry["verdict"]
        lines.setdefault(entry["question"], []).append(f"**{text}**" if named else text)
    return markdown(["what it gave", *TESTS.values()], [[question, *cells] for question, cells in lines.items()])


def times() -> str:
    """Wall and processor time of each kind of step."""
    runs = pd.read_csv(HERE / "times.csv")
    trivial = runs["arm"].map(lambda arm: bool(read_matrix()["arms"][arm].get("trivial")))
    runs.loc[trivial, "step"] = "evaluate, without a network"
    lines = []
    for step, some in runs.groupby("step", sort=False):
        wall, cpu = some["wall_seconds"], some["cpu_seconds"]
        lines.append([step, str(len(some)), f"{cpu.median():.0f}", f"{wall.median():.0f}", f"{wall.sum() / 3600:.2f}"])
    columns = ["runs", "processor seconds, median", "wall seconds, median", "wall hours, all"]
    return markdown(["step", *columns], lines)


def pretrainings() -> dict[str, pd.DataFrame]:
    """Rows of `pretraining.csv` by the title of the first arm that starts there."""
    table, matrix = pd.read_csv(HERE / "pretraining.csv"), read_matrix()
    titles = {arm["pretraining"]: arm["title"] for arm in reversed(matrix["arms"].values()) if "pretraining" in arm}
    measured = set(table["pretraining"])
    return {titles[n]: table[table["pretraining"] == n] for n in matrix["pretrainings"] if n in measured}


def pretraining() -> str:
    """What pre-training learned: its loss terms over the last steps, mean and range over the folds."""
    lines = []
    for name, table in pretrainings().items():
        ends = table.groupby("fold")[list(TERMS)].apply(lambda fold: fold.tail(5).mean())
        terms = [f"{ends[t].mean():.3f} ({ends[t].min():.3f} to {ends[t].max():.3f})" for t in TERMS]
        lines.append([name, str(len(ends)), *terms])
    columns = ["inpainting", "rotation (guessing: 1.386)", "contrastive (telling nothing apart: 1.099)"]
    return markdown(["pre-training", "folds", *columns, "density divergence"], lines)


def features() -> str:
    """Table 3: what encoders make of CT and of MRI at the same places, mean and range over the folds."""
    table = pd.read_csv(HERE / "features.csv")
    # the similarity of unrelated places, stored beside, is zero within 0.02 everywhere: no column
    table = table[~table["measure"].str.contains("unrelated")]
    measures, lines = list(dict.fromkeys(table["measure"])), []
    for encoder, own in table.groupby("encoder", sort=False):
        values = own.groupby("measure")["value"].agg(["mean", "min", "max"]).reindex(measures)
        cells = ["-" if np.isnan(v["mean"]) else _interval(v["mean"], v["min"], v["max"]) for _, v in values.iterrows()]
        lines.append([encoder, *cells])
    return markdown(["encoder", *measures], lines)


def _forest(rows: dict[str, list[Interval | None]], xlabel: str, grey: Sequence[str] = ()) -> Figure:
    """A row of intervals in the column of each test; titles in `grey` only serve as a measure."""
    figure = Figure((4 + 2.8 * len(TESTS), 0.9 + 0.34 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots(1, len(TESTS), sharey=True)
    for column, (axis, ((_, modality), tested_on)) in enumerate(zip(axes, TESTS.items())):
        for height, (name, intervals) in enumerate(reversed(rows.items())):
            if (interval := intervals[column]) is not None:
                colour = "0.55" if name in grey else {"ct": "C0", "mr": "C1"}[modality]
                axis.plot(interval[1:], [height, height], color=colour, lw=2)
                axis.plot(interval[0], height, "o", color=colour)
        axis.set_title(tested_on, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    axes[0].set_yticks(range(len(rows)), list(reversed(rows)), fontsize=8)
    figure.supxlabel(xlabel, fontsize=9)
    return figure


def results_figure() -> Figure:
    """Mean Dice of every row of table 1, of each structure in CT and in MRI."""
    plain = rows_of("main", without_image=True)
    rows: dict[str, list[Interval | None]] = {}
    for row in rows_of("main", without_image=False) + plain:
        found = [means(scores_of(row, test)) for test in TESTS]
        rows[title(row)] = [summarize(values.to_numpy())[:3] if len(values) else None for values in found]
    figure = _forest(rows, "Dice, mean over patients, 95 % interval", [title(row) for row in plain])
    for axis in figure.axes:
        axis.set_xlim(0, 1)
    return figure


def ablations_figure() -> Figure:
    """What each change of table 2 makes of the Dice, with its interval over folds."""
    reference, rows = read_matrix()["ablations_of"], {}
    for arm in rows_of("ablations"):
        pairs = [[scores_of(row, test, one_seed=True) for row in (arm, reference)] for test in TESTS]
        found = [difference(*pair) for pair in pairs]
        rows[title(arm)] = [None if np.isnan(interval[1]) else interval for interval in found]
    figure = _forest(rows, "difference of Dice from SwinFUSE, pre-trained; 95 % interval over folds")
    bound = max((abs(v) for found in rows.values() for i in found if i for v in i[1:]), default=1.0)
    for axis in figure.axes:
        axis.axvline(0, color="0.5", lw=1)
        axis.set_xlim(-1.05 * bound, 1.05 * bound)
    return figure


def few_labels_figure() -> Figure:
    """Dice by the number of training cases, with and without pre-training, intervals over patients."""
    counts, models = few_label_scores()
    figure = Figure((2.6 * len(TESTS), 3), layout="constrained")
    axes = figure.subplots(1, len(TESTS), sharey=True)
    for axis, (test, tested_on) in zip(axes, TESTS.items()):
        for shift, (name, tests) in enumerate(models.items()):
            found = np.array([summarize(means(scores).to_numpy())[:3] for scores in tests[test]]).T
            errors = [found[0] - found[1], found[2] - found[0]]
            places, label = np.arange(len(counts)) + 0.12 * shift, name if axis is axes[0] else None
            axis.errorbar(places, found[0], yerr=errors, marker="o", capsize=3, label=label)
        axis.set_title(tested_on, fontsize=10)
        axis.set_xticks(range(len(counts)), ["all" if count is None else str(count) for count in counts])
        axis.set_ylim(0, 1)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("Dice")
    figure.supxlabel("training cases", fontsize=9)
    figure.legend(loc="outside upper center", ncols=len(models), fontsize=8)
    return figure


def density_figure() -> Figure:
    """The density divergence over pre-training, mean and range over folds."""
    figure = Figure((8, 5), layout="constrained")
    axis = figure.subplots()
    for name, table in pretrainings().items():
        if table["pretraining"].iloc[0] in DENSITIES:
            over_folds = table.groupby("step")["density"].agg(["mean", "min", "max"])
            (line,) = axis.plot(over_folds.index, over_folds["mean"], label=name)
            limits = (over_folds["min"], over_folds["max"])
            axis.fill_between(over_folds.index, *limits, color=line.get_color(), alpha=0.2, lw=0)
    axis.axhline(np.log(2), color="0.5", ls="--", lw=1)
    axis.set_yscale("log")
    axis.set_xlabel("step of pre-training")
    axis.set_ylabel("density divergence, nats (dashed: ln 2)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (summary, main, position, floor, contrasts, ablations)
    + (pretraining, features, few_labels, longer, union, times)
}
FIGURES: dict[str, Callable[[], Figure]] = {
    "results": results_figure,
    "ablations": ablations_figure,
    "few_labels": few_labels_figure,
    "density": density_figure,
}


def render(page: str) -> str:
    """The page with every table between its marks written anew; a table that does not exist is a KeyError."""
    pattern = r"<!-- table: (\w+) -->.*?<!-- end -->"
    return re.sub(pattern, lambda m: f"<!-- table: {m[1]} -->\n\n{TABLES[m[1]]()}\n<!-- end -->", page, flags=re.DOTALL)


def write() -> None:
    """Write every table and picture."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for name, draw in FIGURES.items():
        draw().savefig(IMAGES / f"{name}.png", dpi=110)


if __name__ == "__main__":
    fire.Fire({"write": write, "table": lambda name: TABLES[name]()})
