"""Tables and pictures of `docs/results.md` from the per-case scores in `experiments/results`.

    python experiments/report.py write            every table and picture, into docs/results.md and docs/images
    python experiments/report.py table main       one table to the screen: main, contrasts, position, ...

Nothing in them is typed by hand: what stands between `<!-- table: NAME -->` and `<!-- end -->` this program writes.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import figures
import fire
import numpy as np
import run
from run import HERE, TERMS, cells, read_matrix
from scores import (
    TESTS,
    UNIONS,
    AllScores,
    Scores,
    arm_of,
    averaged,
    compare,
    difference,
    few_label_scores,
    fold_interval,
    one_seed,
    patient_means,
    pretrainings,
    read_scores,
    rows_of,
    seeds_of,
    shared_means,
    title,
)

from swinfuse_components.evaluation.statistics import PairedTest, holm, summarize
from swinfuse_components.evaluation.tables import markdown

PAGE = HERE.parent / "docs" / "results.md"


def _interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def _difference(own: Scores, first: Scores) -> str:
    mean, low, high = difference(own, first)
    interval = "one fold" if np.isnan(low) else f"{low:+.2f} to {high:+.2f}"
    return f"{mean:+.2f} ({interval})"


def _score_table(scores: AllScores, rows: Iterable[str], first_column: str) -> str:
    lines = []
    for row in rows:
        line, patients, seeds = [title(row)], set(), []
        for test in TESTS:
            tested = scores.get((row, *test), {})
            summary = summarize(list(patient_means(tested).values()))
            line.append(_interval(*summary[:3]) if summary.cases else "-")
            patients |= set(tested)
            seeds += [seeds_of(tested)] if tested else []
        lines.append([*line, str(len(patients)), str(min(seeds, default=0))])
    return markdown([first_column, *TESTS.values(), "patients", "seeds"], lines)


def main() -> str:
    """Mean Dice of every arm, in distribution and out of it."""
    scores = read_scores()
    return _score_table(scores, rows_of(scores, without_network=False), "model, fine-tuned on CT unless said")


def position() -> str:
    """What can be had without looking at the image."""
    scores = read_scores()
    return _score_table(scores, rows_of(scores, without_network=True), "row")


def ablations() -> str:
    """Table 2: one thing changed in pre-training, with the difference and its interval over folds."""
    matrix, scores = read_matrix(), read_scores()
    reference = matrix["ablations_of"]
    lines = []
    for arm, settings in matrix["arms"].items():
        if arm != reference and settings.get("table") != "ablations":
            continue
        line, patients = [settings["title"]], set()
        for test in TESTS:
            own, first = (one_seed(scores.get((row, *test), {})) for row in (arm, reference))
            text = f"{np.mean(list(patient_means(own).values())):.2f}" if own else "-"
            if own and first and arm != reference:
                text += f"; {_difference(own, first)}"
            line.append(text)
            patients |= set(own)
        lines.append([*line, str(len(patients))])
    return markdown(["pre-training", *TESTS.values(), "patients"], lines)


def few_labels() -> str:
    """Table 4: Dice by the number of training cases on the same patients, and what pre-training adds to it."""
    counts, columns = few_label_scores()
    lines = []
    for name, tests in columns.items():
        for test, found in tests.items():
            shared = set.intersection(*(set(column) for column in found if column)) if any(found) else set()
            means = [[mean for p, mean in patient_means(column).items() if p in shared] for column in found]
            cells_ = [_interval(*summarize(mean)[:3]) if mean else "-" for mean in means]
            lines.append([name, TESTS[test], *cells_, str(len(shared))])
    scratch, pretrained = columns.values()
    for test, tested_on in TESTS.items():
        line = ["the second minus the first", tested_on]
        for first, second in zip(scratch[test], pretrained[test]):
            mean, low, high = difference(second, first)
            line.append("-" if np.isnan(low) else _interval(mean, low, high, "+"))
        lines.append([*line, str(max(len(set(a) & set(b)) for a, b in zip(scratch[test], pretrained[test])))])
    titles = [f"{n} cases" for n in counts if n is not None]
    return markdown(["model", "tested on", *titles, "all cases", "patients"], lines)


def longer() -> str:
    """Table 5: more steps of fine-tuning, beside the usual number on the same patients and seed."""
    scores, lines = read_scores(), []
    for arm, settings in read_matrix()["arms"].items():
        if settings.get("table") != "longer":
            continue
        for test, tested_on in TESTS.items():
            more, usual = (one_seed(scores.get((row, *test), {})) for row in (arm, settings["than"]))
            means = shared_means(usual, more)
            line = [settings["title"], tested_on, str(settings["steps"]), str(len(means[0]))]
            line += [_interval(*summarize(list(m.values()))[:3]) if m else "-" for m in means]
            lines.append([*line, f"{difference(more, usual)[0]:+.2f}" if means[0] else "-"])
    return markdown(
        ["model", "tested on", "steps", "patients", "Dice after the usual steps", "Dice after these", "difference"],
        lines,
    )


def union() -> str:
    """Table 6: other organs by the union of the foreground, with differences and their intervals as in table 2."""
    arms, scores = read_matrix()["arms"], read_scores()
    rows = [row for row in dict.fromkeys(key[0] for key in scores) if arms[arm_of(row)].get("table") == "union"]
    lines = []
    for row in sorted(rows, key=lambda row: list(arms).index(arm_of(row))):
        settings = arms[arm_of(row)]
        trained = {**settings, **arms.get(settings.get("of"), {})}
        line = ["-" if trained.get("trivial") else UNIONS[trained.get("trained_on", "ct")], title(row)]
        for target in UNIONS:
            own, first = (scores.get((name, "foreground", target), {}) for name in (row, settings.get("than")))
            summary = summarize(list(patient_means(own).values()))
            text = f"{_interval(*summary[:3])}, {summary.cases} cases" if summary.cases else "-"
            if own and first:
                text += f"; {_difference(own, first)}"
            line.append(text)
        lines.append(line)
    return markdown(["trained on", "model", *UNIONS.values()], lines)


def verdict(test: PairedTest, p_corrected: float, over_folds: tuple[float, float]) -> str:
    """What a comparison allows to be said: a direction only where test and both intervals agree on it."""
    if test.cases < 2 or np.isnan(p_corrected):
        return "not measured"
    if p_corrected < 0.05 and test.low > 0 and over_folds[0] > 0:
        return "**higher**"
    if p_corrected < 0.05 and test.high < 0 and over_folds[1] < 0:
        return "**lower**"
    return "not resolved"


@functools.cache
def contrast_tests() -> list[dict[str, Any]]:
    """Every contrast of `matrix.yaml` in every test, corrected by Holm over all of them."""
    scores, found = read_scores(), []
    for contrast in read_matrix()["contrasts"]:
        for key, tested_on in TESTS.items():
            first, second = (scores.get((contrast[side], *key), {}) for side in ("first", "second"))
            test = compare(first, second)
            found.append(
                {
                    **contrast,
                    "tested_on": tested_on,
                    "test": test,
                    "over_folds": fold_interval(first, second),
                    "seeds": min(seeds_of(first), seeds_of(second)),
                }
            )
    for entry, p in zip(found, holm([entry["test"].p_value for entry in found])):
        entry["p"] = p
        entry["verdict"] = verdict(entry["test"], p, entry["over_folds"])
    return found


def contrasts() -> str:
    """What each ingredient gave: differences of Dice on the same patients."""
    lines = []
    for entry in contrast_tests():
        test: PairedTest = entry["test"]
        measured = test.cases > 1
        lines.append(
            [
                entry["question"],
                entry["tested_on"],
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


def summary() -> str:
    """Every contrast in one line: difference of Dice with its interval over folds, bold where a direction is named."""
    lines: dict[str, list[str]] = {}
    for entry in contrast_tests():
        low, high = entry["over_folds"]
        text = "-" if np.isnan(low) else _interval(entry["test"].difference, low, high, "+")
        if "higher" in entry["verdict"] or "lower" in entry["verdict"]:
            text = f"**{text}**"
        lines.setdefault(entry["question"], []).append(text)
    return markdown(["what it gave", *TESTS.values()], [[question, *cells_] for question, cells_ in lines.items()])


def _times() -> dict[str, list[float]]:
    path, times = run.RESULTS / "runs.csv", defaultdict(list)
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


def left() -> str:
    """Cells that have no results yet, and the processor hours they need by the measured medians."""
    matrix, measured, lines = read_matrix(), _times(), []
    median = {step: float(np.median(measured.get(f"{step} cpu", [0]))) for step in ("pretrain", "finetune", "evaluate")}
    counted: set[tuple] = set()
    for arm, settings in matrix["arms"].items():
        missing = [cell for cell in cells([arm]) if not cell.result.is_file()]
        if not missing:
            continue
        trained = not settings.get("trivial") and "of" not in settings
        seconds = len(missing) * (median["evaluate"] + (median["finetune"] if trained else 0))
        pretrainings = (
            {(settings["pretraining"], cell.fold) for cell in missing} if "pretraining" in settings else set()
        )
        seconds += len(pretrainings - counted) * median["pretrain"]
        counted |= pretrainings
        seeds = ", ".join(f"seed {s}: {n}" for s in matrix["seeds"] if (n := sum(c.seed == s for c in missing)))
        name = ", ".join(
            [settings["title"], *(f"{settings[key]} {key}" for key in ("cases", "steps") if key in settings)]
        )
        lines.append([settings.get("table", "main").replace("_", " "), name, seeds, f"{seconds / 3600:.2f}"])
    if not lines:
        return "Nothing is left.\n"
    without = "" if "pretrain" in measured else " (pre-training, not timed yet, comes on top)"
    total = f"\nTogether {sum(float(line[-1]) for line in lines):.1f} processor hours{without}.\n"
    return markdown(["table", "arm", "folds left", "processor hours"], lines) + total


def coverage() -> str:
    """How much is measured, table by table."""
    lines = []
    for table in ("main", "ablations", "few_labels", "longer", "union"):
        planned = list(cells(table=table))
        lines.append(f"{sum(cell.result.is_file() for cell in planned)} of {len(planned)} ({table.replace('_', ' ')})")
    return f"Measured so far: {', '.join(lines)} cells.\n"


def floor() -> str:
    """Which rows beat the best row that never looks at the image, on the patients that both have."""
    scores, lines = read_scores(), []
    for test, tested_on in TESTS.items():
        means = {
            row: float(np.mean(list(patient_means(scores[(row, *test)]).values())))
            for row in rows_of(scores, without_network=True)
            if (row, *test) in scores
        }
        if not means:
            continue
        best = max(means, key=means.__getitem__)
        rows = [r for r in rows_of(scores, without_network=False) if (r, *test) in scores]
        found = {row: compare(averaged(scores[(row, *test)]), averaged(scores[(best, *test)])) for row in rows}
        above = [f"{title(row)} (by {gain.difference:.2f})" for row, gain in found.items() if gain.low > 0]
        below = [f"{title(row)} (by {-gain.difference:.2f})" for row, gain in found.items() if gain.high < 0]
        lines.append(
            f"- {tested_on}: the best row that does not look is *{title(best)}*, "
            f"{means[best]:.2f}. Above it, with their whole interval over patients: {'; '.join(above) or 'nothing'}. "
            f"Below it: {'; '.join(below) or 'nothing'}."
        )
    return "\n".join(lines) + "\n"


def pretraining() -> str:
    """What pre-training learned: its loss terms at the start and at the end, mean and range over the folds."""
    lines = []
    for name, records in pretrainings().items():
        line = [name, str(len({r["fold"] for r in records}))]
        for term in TERMS:
            ends = []
            for fold in sorted({r["fold"] for r in records}):
                ends.append(np.mean([float(r[term]) for r in records if r["fold"] == fold][-5:]))
            line.append(f"{np.mean(ends):.3f} ({min(ends):.3f} to {max(ends):.3f})")
        lines.append(line)
    columns = [
        "inpainting",
        "rotation (guessing: 1.386)",
        "contrastive (telling nothing apart: 1.099)",
        "density divergence",
    ]
    return markdown(["pre-training", "folds", *columns], lines)


def features() -> str:
    """Table 3: what encoders make of CT and of MRI at the same places, mean and range over the folds."""
    path = run.RESULTS / "features.csv"
    if not path.is_file():
        return "Not measured yet.\n"
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    # the similarity of unrelated places, stored beside, is zero within 0.02 everywhere: no column
    measures = [m for m in dict.fromkeys(r["measure"] for r in records) if "unrelated" not in m]
    lines = []
    for encoder in dict.fromkeys(record["encoder"] for record in records):
        line = [encoder]
        for measure in measures:
            values = [float(r["value"]) for r in records if (r["encoder"], r["measure"]) == (encoder, measure)]
            line.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-")
        lines.append(line)
    return markdown(["encoder", *measures], lines)


TABLES: dict[str, Callable[[], str]] = {
    "coverage": coverage,
    "summary": summary,
    "floor": floor,
    "ablations": ablations,
    "features": features,
    "pretraining": pretraining,
    "few_labels": few_labels,
    "longer": longer,
    "union": union,
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
    return "\n".join(map(str, [PAGE, *figures.draw_all()]))


def table(name: str) -> str:
    """One table as text."""
    return TABLES[name]()


if __name__ == "__main__":
    fire.Fire({"write": write, "table": table})
