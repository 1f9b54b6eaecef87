"""The per-case scores in `experiments/results`, and how two rows of them are compared: patients paired, folds apart."""

from __future__ import annotations

import csv
import functools
import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import run
from run import cells, read_matrix
from scipy import stats

from swinfuse_components.evaluation.statistics import PairedTest, paired_test

MODALITIES = {"ct": "CT", "mr": "MRI"}
STRUCTURES = tuple(read_matrix()["structures"])
#: What is tested, a structure in a modality, with its title, in the order of the tables' columns.
TESTS = {(s, m): f"{s} in {name}" for s in STRUCTURES for m, name in MODALITIES.items()}
#: What table 6 tests: all the foreground of a task.
UNIONS = {
    "ct": "sarcoma and bone in CT",
    "head_neck": "head and neck in CT",
    "mr": "sarcoma and bone in MRI",
    "hippocampus": "hippocampus in MRI",
}

#: Dice of one row of the table in one test: patient -> (seed, fold) -> score. A patient is tested in one fold.
Scores = Mapping[str, Mapping[tuple[int, int], float]]
#: Every row, structure and modality.
AllScores = Mapping[tuple[str, str, str], Scores]


@functools.cache
def read_scores(score: str = "dice") -> AllScores:
    """Scores by row, structure and modality, then by patient, one value for each seed and fold.

    A row is an arm, `arm/view` for another view than the image, or `arm: name` for the rows of the trivial baselines.
    A patient without the structure has no Dice and is left out.
    """
    scores: dict[tuple[str, str, str], dict[str, dict]] = defaultdict(lambda: defaultdict(dict))
    matrix = read_matrix()
    for cell in cells():
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
                if (value := float(record[score])) == value:
                    key = (row, record["structure"], record["tested_on"])
                    scores[key][record["patient"]][cell.seed, cell.fold] = value
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


def shared_means(first: Scores, second: Scores) -> tuple[dict[str, float], dict[str, float]]:
    """Means of both over the seeds that both have, for the patients that both have."""
    means: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for patient in sorted(set(first) & set(second)):
        keys = sorted(set(first[patient]) & set(second[patient]))
        if keys:
            means[0][patient] = float(np.mean([first[patient][key] for key in keys]))
            means[1][patient] = float(np.mean([second[patient][key] for key in keys]))
    return means


def averaged(scores: Scores) -> Scores:
    """The mean over seeds in place of the seeds, to compare with a row that has fewer of them."""
    return {patient: {(0, 0): mean} for patient, mean in patient_means(scores).items()}


def compare(first: Scores, second: Scores) -> PairedTest:
    """First minus second over the patients that both have, the seeds that both have averaged."""
    a, b = shared_means(first, second)
    return paired_test(list(a.values()), list(b.values()), method="permutation")


def fold_interval(first: Scores, second: Scores) -> tuple[float, float]:
    """95 % t interval of first minus second over the folds, NaN for fewer than two.

    The networks of a fold are its own, so that the spread between folds holds what patients and trainings add; over
    patients alone the noise of a training, which is common to all patients of its fold, would be missed.
    """
    a, b = shared_means(first, second)
    differences = defaultdict(list)
    for patient in a:
        (fold,) = {fold for _, fold in first[patient]}
        differences[fold].append(a[patient] - b[patient])
    means = [float(np.mean(values)) for values in differences.values()]
    if len(means) < 2:
        return float("nan"), float("nan")
    if np.ptp(means) == 0:
        return means[0], means[0]
    low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    return float(low), float(high)


def difference(first: Scores, second: Scores) -> tuple[float, float, float]:
    """Mean of first minus second over the patients that both have, with its interval over the folds."""
    a, b = shared_means(first, second)
    mean = float(np.mean([a[patient] - b[patient] for patient in a])) if a else float("nan")
    return mean, *fold_interval(first, second)


def seeds_of(scores: Scores) -> int:
    """Least number of seeds any patient has."""
    return min((len(values) for values in scores.values()), default=0)


def arm_of(row: str) -> str:
    """The arm that a row of a table belongs to."""
    return re.split("/|:", row)[0]


def rows_of(scores: AllScores, *, without_network: bool) -> list[str]:
    """Rows of table 1, those that look at the image or those that do not."""
    arms = [arm for arm, settings in read_matrix()["arms"].items() if settings.get("table", "main") == "main"]
    plain = ("trivial", "blank", "silhouette")
    rows = [r for r in dict.fromkeys(key[0] for key in scores) if arm_of(r) in arms]
    return sorted((r for r in rows if (arm_of(r) in plain) == without_network), key=lambda r: arms.index(arm_of(r)))


def one_seed(scores: Scores) -> Scores:
    """What the first seed gave: the other tables have no more."""
    first = read_matrix()["seeds"][0]
    return {
        patient: kept
        for patient, values in scores.items()
        if (kept := {key: value for key, value in values.items() if key[0] == first})
    }


def few_label_scores() -> tuple[list[int | None], dict[str, dict[tuple[str, str], list[Scores]]]]:
    """Numbers of training cases (None: all), and for each model and test the scores with each of them, one seed."""
    matrix, scores = read_matrix(), read_scores()
    arms = {a: s for a, s in matrix["arms"].items() if s.get("table") == "few_labels" or a in matrix["few_labels_of"]}
    counts = [*sorted({s["cases"] for s in arms.values() if "cases" in s}), None]
    columns = {}
    for name in matrix["few_labels_of"]:
        title_ = matrix["arms"][name]["title"]
        own = {s.get("cases"): a for a, s in arms.items() if s["title"] == title_}
        columns[title_] = {test: [one_seed(scores.get((own[n], *test), {})) for n in counts] for test in TESTS}
    return counts, columns


def pretrainings() -> dict[str, list[dict[str, str]]]:
    """Rows of `pretraining.csv` by the title of the first arm that starts there."""
    with (run.RESULTS / "pretraining.csv").open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    titles = {
        arm["pretraining"]: arm["title"] for arm in reversed(read_matrix()["arms"].values()) if "pretraining" in arm
    }
    ordered = sorted({r["pretraining"] for r in records}, key=list(read_matrix()["pretrainings"]).index)
    return {titles[name]: [r for r in records if r["pretraining"] == name] for name in ordered}
