"""Tables and pictures of `docs/results.md` from the per-case scores in `experiments/results`.

    python experiments/report.py write            every table and picture, into docs/results.md and docs/images
    python experiments/report.py table main       one table to the screen: main, contrasts, position, ...

Nothing in them is typed by hand: what stands between `<!-- table: NAME -->` and `<!-- end -->` this program writes.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import fire
import numpy as np
from run import HERE, RESULTS, cells, read_matrix
from scipy import stats

from swinfuse_components.evaluation.statistics import PairedTest, holm, paired_test, summarize
from swinfuse_components.evaluation.tables import markdown

PAGE = HERE.parent / "docs" / "results.md"
IMAGES = HERE.parent / "docs" / "images"
MODALITIES = {"ct": "CT", "mr": "MRI"}

#: Dice of one row of the table in one modality: patient -> (seed, fold) -> score. A patient is tested in one fold.
Scores = Mapping[str, Mapping[tuple[int, int], float]]


def read_scores(probe: str = "tumour", score: str = "dice") -> dict[tuple[str, str], dict[str, dict]]:
    """Scores by row and modality, then by patient, one value for each seed and fold.

    A row is an arm, `arm/view` for another view than the image, or `arm: name` for the rows of the trivial baselines.
    """
    scores: dict[tuple[str, str], dict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    matrix = read_matrix()
    for cell in cells(probe):
        if not cell.result.is_file():
            continue
        arm = matrix["arms"][cell.arm]
        own_view = arm.get("views", [None])[0]
        with cell.result.open(newline="", encoding="utf-8") as file:
            for record in csv.DictReader(file):
                row = cell.arm
                if arm.get("trivial"):
                    row = f"{row}: {record['row']}"
                elif own_view is not None and record["view"] != own_view:
                    row = f"{row}/{record['view']}"
                scores[row, record["tested_on"]][record["patient"]][cell.seed, cell.fold] = float(record[score])
    return {key: dict(patients) for key, patients in scores.items()}


def title(row: str) -> str:
    """What a row is called."""
    arm, *rest = re.split(r"/|: ", row, maxsplit=1)
    text = read_matrix()["arms"][arm]["title"]
    if not rest:
        return text
    return f"{text}, {rest[0]} at test time" if "/" in row else rest[0]


def patient_means(scores: Scores) -> dict[str, float]:
    """Mean over the seeds for each patient."""
    return {patient: float(np.mean(list(values.values()))) for patient, values in scores.items()}


def compare(first: Scores, second: Scores) -> PairedTest:
    """First minus second over the patients that both have, each patient's seeds averaged."""
    a, b = patient_means(first), patient_means(second)
    both = sorted(set(a) & set(b))
    return paired_test([a[p] for p in both], [b[p] for p in both], method="permutation")


def fold_interval(first: Scores, second: Scores) -> tuple[float, float]:
    """95 % t interval of first minus second over the folds, NaN for fewer than two.

    The networks of a fold are its own, so that the spread between folds holds what patients and trainings add; over
    patients alone the noise of a training, which is common to all patients of its fold, would be missed.
    """
    a, b = patient_means(first), patient_means(second)
    differences = defaultdict(list)
    for patient in sorted(set(a) & set(b)):
        (fold,) = {fold for _, fold in first[patient]}
        differences[fold].append(a[patient] - b[patient])
    means = [float(np.mean(values)) for values in differences.values()]
    if len(means) < 2:
        return float("nan"), float("nan")
    if np.ptp(means) == 0:
        return means[0], means[0]
    low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    return float(low), float(high)


def seeds_of(scores: Scores) -> int:
    """Least number of seeds any patient has."""
    return min((len(values) for values in scores.values()), default=0)


def _interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _rows(scores: Mapping[tuple[str, str], Scores], *, without_network: bool) -> list[str]:
    arms = list(read_matrix()["arms"])
    plain = ("trivial", "blank", "silhouette")
    rows = [r for r in dict.fromkeys(row for row, _ in scores) if (re.split("/|:", r)[0] in plain) == without_network]
    return sorted(rows, key=lambda r: arms.index(re.split("/|:", r)[0]))


def _score_lines(scores: Mapping[tuple[str, str], Scores], rows: Iterable[str]) -> list[list[str]]:
    lines = []
    for row in rows:
        line = [title(row)]
        for modality in MODALITIES:
            summary = summarize(list(patient_means(scores.get((row, modality), {})).values()))
            line.append(_interval(*summary[:3]) if summary.cases else "-")
        any_scores = scores.get((row, "ct")) or scores.get((row, "mr")) or {}
        lines.append([*line, str(len(any_scores)), str(seeds_of(any_scores))])
    return lines


def main(probe: str = "tumour") -> str:
    """Mean Dice of every arm, in distribution and out of it."""
    scores = read_scores(probe)
    return markdown(
        ["model, fine-tuned on CT unless said", "Dice in CT", "Dice in MRI", "patients", "seeds"],
        _score_lines(scores, _rows(scores, without_network=False)),
    )


def position(probe: str = "tumour") -> str:
    """What can be had without looking at the image."""
    scores = read_scores(probe)
    return markdown(
        ["row", "Dice in CT", "Dice in MRI", "patients", "seeds"],
        _score_lines(scores, _rows(scores, without_network=True)),
    )


def verdict(test: PairedTest, p_corrected: float, over_folds: tuple[float, float]) -> str:
    """What a comparison allows to be said: a direction only where test and both intervals agree on it."""
    if test.cases < 2 or np.isnan(p_corrected):
        return "not measured"
    if p_corrected < 0.05 and test.low > 0 and over_folds[0] > 0:
        return "**higher**"
    if p_corrected < 0.05 and test.high < 0 and over_folds[1] < 0:
        return "**lower**"
    return "not resolved"


def contrast_tests(probe: str = "tumour") -> list[dict[str, Any]]:
    """Every contrast of `matrix.yaml` in both modalities, corrected by Holm over all of them."""
    scores, found = read_scores(probe), []
    for contrast in read_matrix()["contrasts"]:
        for modality in MODALITIES:
            first, second = (scores.get((contrast[side], modality), {}) for side in ("first", "second"))
            test = compare(first, second)
            found.append(
                {
                    **contrast,
                    "modality": modality,
                    "test": test,
                    "over_folds": fold_interval(first, second),
                    "seeds": min(seeds_of(first), seeds_of(second)),
                }
            )
    for entry, p in zip(found, holm([entry["test"].p_value for entry in found])):
        entry["p"] = p
        entry["verdict"] = verdict(entry["test"], p, entry["over_folds"])
    return found


def contrasts(probe: str = "tumour") -> str:
    """What each ingredient gave: differences of Dice on the same patients."""
    lines = []
    for entry in contrast_tests(probe):
        test: PairedTest = entry["test"]
        measured = test.cases > 1
        lines.append(
            [
                entry["question"],
                MODALITIES[entry["modality"]],
                _interval(test.difference, test.low, test.high, "+") if measured else "-",
                "{:+.2f} to {:+.2f}".format(*entry["over_folds"]) if not np.isnan(entry["over_folds"][0]) else "-",
                ("<0.001" if entry["p"] < 0.001 else f"{entry['p']:.3f}") if measured else "-",
                f"{test.cases} / {entry['seeds']}",
                entry["verdict"],
            ]
        )
    return markdown(
        [
            "what it gave",
            "tested on",
            "difference of Dice (over patients)",
            "interval over folds",
            "p (Holm)",
            "patients / seeds",
            "verdict",
        ],
        lines,
    )


def _times() -> dict[str, list[float]]:
    path, times = RESULTS / "runs.csv", defaultdict(list)
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for record in csv.DictReader(file):
                trivial = read_matrix()["arms"][record["arm"]].get("trivial")
                step = "evaluate, without a network" if trivial else record["step"]
                times[step].append(float(record["wall_seconds"]))
                times[f"{step} cpu"].append(float(record["cpu_seconds"]))
    return dict(times)


def times() -> str:
    """Wall and processor time of each kind of step."""
    measured = _times()
    return markdown(
        ["step", "runs", "processor seconds, median", "wall seconds, median", "wall hours, all"],
        [
            [
                step,
                str(len(measured[step])),
                f"{np.median(measured[f'{step} cpu']):.0f}",
                f"{np.median(measured[step]):.0f}",
                f"{sum(measured[step]) / 3600:.2f}",
            ]
            for step in measured
            if not step.endswith(" cpu")
        ],
    )


def left(probe: str = "tumour") -> str:
    """Cells of table 1 that have no results yet, and the processor hours they need by the measured medians."""
    matrix, measured, lines = read_matrix(), _times(), []
    median = {step: float(np.median(measured.get(f"{step} cpu", [0]))) for step in ("pretrain", "finetune", "evaluate")}
    counted: set[tuple] = set()
    for arm, settings in matrix["arms"].items():
        missing = [cell for cell in cells(probe, [arm]) if not cell.result.is_file()]
        if not missing:
            continue
        seconds = len(missing) * (median["evaluate"] + (0 if settings.get("trivial") else median["finetune"]))
        pretrainings = (
            {(settings["pretraining"], c.seed, c.fold) for c in missing} if "pretraining" in settings else set()
        )
        seconds += len(pretrainings - counted) * median["pretrain"]
        counted |= pretrainings
        seeds = ", ".join(f"seed {s}: {sum(c.seed == s for c in missing)}" for s in matrix["seeds"])
        lines.append([settings["title"], seeds, f"{seconds / 3600:.2f}"])
    if not lines:
        return "Nothing is left.\n"
    without = "" if "pretrain" in measured else " (pre-training, not timed yet, comes on top)"
    total = f"\nTogether {sum(float(line[-1]) for line in lines):.1f} processor hours{without}.\n"
    return markdown(["arm", "folds left", "processor hours"], lines) + total


def coverage(probe: str = "tumour") -> str:
    """How much of table 1 is measured, and which directions it names."""
    planned = list(cells(probe))
    done = sum(cell.result.is_file() for cell in planned)
    found = contrast_tests(probe)
    named = [e for e in found if "higher" in e["verdict"] or "lower" in e["verdict"]]
    text = f"{done} of {len(planned)} cells of table 1 are measured; "
    if not named:
        return text + f"of {len(found)} comparisons none has a direction that could be resolved.\n"
    list_of = "; ".join(f"{e['question']}: {e['verdict'].strip('*')} in {MODALITIES[e['modality']]}" for e in named)
    return text + f"of {len(found)} comparisons {len(named)} could be resolved: {list_of}.\n"


def floor(probe: str = "tumour") -> str:
    """Which rows beat the best row that never looks at the image, on the patients that both have."""
    scores, lines = read_scores(probe), []
    for modality, name in MODALITIES.items():
        means = {
            row: float(np.mean(list(patient_means(scores[row, modality]).values())))
            for row in _rows(scores, without_network=True)
            if (row, modality) in scores
        }
        if not means:
            continue
        best = max(means, key=means.__getitem__)
        rows = [r for r in _rows(scores, without_network=False) if (r, modality) in scores]
        tests = {row: compare(scores[row, modality], scores[best, modality]) for row in rows}
        above = [f"{title(row)} (by {test.difference:.2f})" for row, test in tests.items() if test.low > 0]
        below = [f"{title(row)} (by {-test.difference:.2f})" for row, test in tests.items() if test.high < 0]
        lines.append(
            f"- {name}: the best row that does not look is *{title(best)}*, {means[best]:.2f}. Above it, with their "
            f"whole interval over patients: {'; '.join(above) or 'nothing'}. Below it: {'; '.join(below) or 'nothing'}."
        )
    return "\n".join(lines) + "\n"


def draw(probe: str = "tumour", path: Path | None = None) -> Path:
    """Forest plot: mean Dice with 95 % interval over patients, in CT and in MRI."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scores = read_scores(probe)
    rows = _rows(scores, without_network=False) + _rows(scores, without_network=True)
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 0.9 + 0.34 * max(len(rows), 1)), sharey=True, layout="constrained")
    for axis, (modality, name) in zip(axes, MODALITIES.items()):
        for height, row in enumerate(reversed(rows)):
            values = scores.get((row, modality))
            if not values:
                continue
            mean, low, high, *_ = summarize(list(patient_means(values).values()))
            colour = "0.55" if row in _rows(scores, without_network=True) else {"ct": "C0", "mr": "C1"}[modality]
            axis.plot([low, high], [height, height], color=colour, lw=2)
            axis.plot(mean, height, "o", color=colour)
        axis.set_title(f"tested on {name}", fontsize=10)
        axis.set_xlabel("Dice, mean over patients, 95 % interval", fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlim(0, 0.85)
    axes[0].set_yticks(range(len(rows)), [title(row) for row in reversed(rows)], fontsize=8)
    target = path or IMAGES / f"results_{probe}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


TABLES: dict[str, Callable[[], str]] = {
    "coverage": coverage,
    "floor": floor,
    "main": main,
    "contrasts": contrasts,
    "position": position,
    "times": times,
    "left": left,
}


def render(page: str) -> str:
    """The page with every table between its marks written anew.

    Raises:
        ValueError: if the page names a table that does not exist.
    """

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in TABLES:
            raise ValueError(f"docs/results.md asks for a table {name!r}: expected one of {sorted(TABLES)}")
        return f"<!-- table: {name} -->\n\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def write() -> str:
    """Write every table and picture."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return f"{PAGE} {draw()}"


def table(name: str) -> str:
    """One table as text."""
    return TABLES[name]()


if __name__ == "__main__":
    fire.Fire({"write": write, "table": table, "draw": draw})
