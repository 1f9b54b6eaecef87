"""Every model on every data set, case by case (the paper's Table 2, Section 3)."""

import gzip
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import nibabel as nib
import pandas as pd
from filelock import FileLock, Timeout

from ..engines.files import atomic_write
from .scores import score_case
from .tables import COLUMNS, KEY, csv_text, read_cases, write_csv
from .targets import Source, Target, named_patients

logger = logging.getLogger(__name__)


class Cell(NamedTuple):
    """One case of a target as a source sees it: in a column (all channels, or one) and a view."""

    source: Source
    target: Target
    item: Mapping[str, Any]
    column: str
    view: str

    @property
    def key(self) -> tuple[str, ...]:
        """Its place in ``cases.csv``: model, training data, view, column, case."""
        return (self.source.name, self.source.trained_on, self.view, self.column, self.item["case"])


class OutOfDistributionMatrix:
    """Score every source on every target.

    Each model is loaded once. Scores go to ``cases.csv`` as they come; a second run finds them there and computes what
    is missing, or what a changed checkpoint, setting or file has made stale.

    ``sources`` are the rows: models, predictions and baselines; ``targets``, data sets, the columns. ``output_dir``
    gets ``cases.csv``, ``failures.csv`` and, with ``keep_predictions``, the label maps of networks for pictures.
    ``class_mapping`` is ``{class of the source: class of the target}``, or ``"same"`` for all classes that have one
    name everywhere; None compares the unions of all foreground, as the paper does. A case whose patient a source was
    trained on is left out for that source (``on_leak="drop"``) or an ``"error"``. ``strict`` refuses to begin while a
    case cannot be read; otherwise the rest is scored. ``failures`` then holds target, case, model (none where the case
    itself could not be read) and reason of what could not be scored.

    Raises:
        ValueError: on an unknown ``on_leak``, or if no class has the same name everywhere.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        targets: Sequence[Target],
        output_dir: str | Path,
        *,
        class_mapping: Mapping[str, str] | str | None = None,
        on_leak: str = "drop",
        keep_predictions: bool = True,
        strict: bool = False,
    ) -> None:
        if on_leak not in ("drop", "error"):
            raise ValueError(f"on_leak is {on_leak!r}: expected 'drop' or 'error'")
        self.sources, self.targets, self.output_dir = list(sources), list(targets), Path(output_dir)
        if isinstance(class_mapping, str):
            class_mapping = self._same_names(class_mapping)
        self.class_mapping = None if class_mapping is None else dict(class_mapping)
        self.on_leak, self.keep_predictions, self.strict = on_leak, keep_predictions, strict
        self.failures = pd.DataFrame(columns=["target", "case", "model", "reason"])

    def _same_names(self, word: str) -> dict[str, str]:
        if word != "same":
            expected = "{'class of the model': 'class of the target'} or same"
            raise ValueError(f"class_mapping is {word!r}: expected {expected}")
        everyone = [*(t.classes for t in self.targets), *(s.classes for s in self.sources)]
        classes = [list(one) for one in everyone if one is not None]
        names = {name: name for name in (classes or [[]])[0] if all(name in other for other in classes)}
        if not names:
            raise ValueError(f"class_mapping is same, but no class has one name everywhere: {classes}")
        return names

    def check(self, in_distribution: Mapping[str, str] | None = None) -> None:
        """Load every model and compare it with every target, before anything is computed.

        ``in_distribution`` (see :func:`write_results`) has to name training data and columns that there are. ValueError
        with all that is wrong, one line each.
        """
        found = [] if self.sources else ["there is no model to test"]
        found += [] if self.targets else ["there is no data set to test on"]
        names = Counter((s.name, s.trained_on) for s in self.sources)
        found += [f"two models are called {n}: give them different names" for n, count in names.items() if count > 1]
        columns = Counter(view for t in self.targets for view in t.views)
        found += [f"two targets are called {c}" for c, count in columns.items() if count > 1]
        for ours, theirs in (self.class_mapping or {}).items():
            for target in self.targets:
                if theirs not in (target.classes or {}):
                    found.append(f"target {target.name} has no class {theirs!r}: it has {sorted(target.classes or {})}")
            for source in self.sources:
                # a trivial baseline has no classes and stands for each of them
                if source.classes is not None and ours not in source.classes:
                    known = sorted(source.classes)
                    found.append(f"model {source.name} ({source.trained_on}) has no class {ours!r}: it has {known}")
        for target, source in product(self.targets, self.sources):
            found += source.problems(target)
            leaked = sorted(source.training_patients & target.patients)
            where = f"{source.name} ({source.trained_on}) was trained on"
            if leaked and self.on_leak == "error":
                found.append(f"{where} patients of {target.name}: {leaked}")
            elif leaked and len(leaked) == len(target.patients):
                found.append(f"{where} every patient of {target.name}")
        data = {source.trained_on for source in self.sources}
        for ours, theirs in (in_distribution or {}).items():
            if ours not in data or theirs not in columns:
                expected = f"training data by columns, {sorted(data)} by {sorted(columns)}"
                found.append(f"in_distribution has {ours!r} and {theirs!r}: expected {expected}")
        if found:
            raise ValueError("\n- ".join(["the evaluation cannot start:", *dict.fromkeys(found)]))

    def run(self) -> pd.DataFrame:
        """Check, compute what is not there yet, and return all rows of this matrix, columns ``tables.COLUMNS``.

        RuntimeError if another evaluation writes into the folder, or no case could be scored (see ``failures.csv``).
        """
        self.check()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.output_dir / ".lock", timeout=0):
                return self._run(self.output_dir / "cases.csv")
        except Timeout as error:
            raise RuntimeError(f"another evaluation is writing into {self.output_dir}") from error

    def refuse_failures(self) -> None:
        """ValueError with the first failure, if there are any: the end of an evaluation, after its tables."""
        if len(self.failures):
            first = self.failures.iloc[0]
            raise ValueError(
                f"{len(self.failures)} score(s) are missing, see {self.output_dir / 'failures.csv'}; the others are "
                f"in the tables. The first: {first['target']}, case {first['case']}: {first['reason']}"
            )

    def _run(self, path: Path) -> pd.DataFrame:
        plan = self._plan()
        sources = {source: source.fingerprint() for source in self.sources}
        marks = {}  # change when a score would: with settings of the source, classes, or the case's files
        for cell in plan:
            of_target = f"{cell.target.classes}|{cell.target.fingerprint(cell.item)}"
            text = f"{sources[cell.source]}|{self.class_mapping}|{of_target}"
            marks[cell.key] = hashlib.sha256(text.encode()).hexdigest()[:16]
        rows = read_cases(path).drop_duplicates([*KEY, "label"], keep="last")
        keys = list(rows[KEY].itertuples(index=False, name=None))
        valid = Counter(key for key, mark in zip(keys, rows["fingerprint"]) if marks.get(key) == mark)
        done = {key for key, count in valid.items() if count == len(self.class_mapping or ["foreground"])}
        if keys:
            logger.info("%s: %d of %d scores are there already", path, len(done), len(plan))
        kept = [key not in marks or key in done and marks[key] == mark for key, mark in zip(keys, rows["fingerprint"])]
        write_csv(rows.loc[kept], path)
        todo = [cell for cell in plan if cell.key not in done]
        cases = [list(cells) for _, cells in groupby(todo, lambda cell: (cell.target.name, cell.item["case"]))]
        failures: list[tuple[str, ...]] = []
        for target in self.targets:  # every file is read before the first window
            listed = [cells[0].item for cells in cases if cells[0].target is target]
            for case, reason in target.check(listed).items():
                failures.append((target.name, case, "", " ".join(reason.split())))
                logger.error("%s, case %s: %s", target.name, case, failures[-1][-1])
        if failures and self.strict:
            found = "\n".join(f"- {target}, case {case}: {reason}" for target, case, _, reason in failures)
            raise ValueError(f"{len(failures)} case(s) cannot be scored ('--strict False' leaves them out):\n{found}")
        broken = {failure[:2] for failure in failures}
        for number, cells in enumerate(cases, start=1):
            place = cells[0].target.name, cells[0].item["case"]
            if place not in broken:
                logger.info("case %d of %d: %s, %s", number, len(cases), *place)
                failures += self._score(cells, marks, path)
        self._write_index()
        self.failures = pd.DataFrame(failures, columns=self.failures.columns)
        write_csv(self.failures, self.output_dir / "failures.csv")
        rows = pd.DataFrame(list(marks), columns=KEY).merge(read_cases(path), on=KEY)  # whatever was computed first
        if rows.empty:
            reason = failures[0][-1] if failures else "every patient was trained on"
            raise RuntimeError(f"not one case could be scored, see {self.output_dir / 'failures.csv'}: {reason}")
        return rows

    def _plan(self) -> list[Cell]:
        """All cells, case by case; no source is to score a patient that it was trained on."""
        return [
            Cell(source, target, item, column, view)
            for target in self.targets
            for item in target.items
            for source in self.sources
            if not named_patients([item]) & source.training_patients
            for column in target.views
            for view in source.views
        ]

    def _classes(self, source: Source, target: Target) -> dict[str, tuple[Sequence[int], Sequence[int]]] | None:
        if self.class_mapping is None:
            return None
        return {
            theirs: ([1] if source.classes is None else [source.classes[ours]], [(target.classes or {})[theirs]])
            for ours, theirs in self.class_mapping.items()
        }

    def _score(self, cells: Sequence[Cell], marks: Mapping[tuple[str, ...], str], path: Path) -> list[tuple[str, ...]]:
        """Read one case and score it in all of its cells; the failures."""
        failures: list[tuple[str, ...]] = []
        target, item = cells[0].target, cells[0].item
        case = target.load(item)
        for cell in cells:
            source, start = cell.source, time.perf_counter()
            try:
                labels = source.predict(case.only(target.views[cell.column]), cell.view)
                scores = score_case(labels, case.truth, case.spacing, self._classes(source, target))
            except Exception as error:  # one model's trouble must not cost the others their results
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                failures.append((cell.column, case.name, f"{source.name} ({source.trained_on})", reason))
                logger.error("%s, case %s, %s: %s", *failures[-1])
                continue
            if self.keep_predictions and source.keeps_predictions:
                with atomic_write(prediction_path(self.output_dir, *cell.key), "wb") as file:
                    file.write(gzip.compress(nib.Nifti1Image(labels, case.affine).to_bytes(), 1))
            seconds, head = time.perf_counter() - start, (*cell.key, str(item.get("patient", case.name)))
            rows = [(*head, label, *score, seconds, marks[cell.key]) for label, score in scores.items()]
            with path.open("a", newline="", encoding="utf-8") as file:  # on disk before the next is begun
                file.write(csv_text(pd.DataFrame(rows, columns=COLUMNS), header=False))
                file.flush()
                os.fsync(file.fileno())
        return failures

    def _write_index(self) -> None:
        """Write ``cases.json``: where the volumes of every column lie, for whoever draws them later."""
        columns = {
            column: {
                "modality": target.modality,
                "classes": target.classes,
                "channel": channel,
                "cases": {item["case"]: {"image": item["image"], "label": item["label"]} for item in target.items},
            }
            for target in self.targets
            for column, channel in target.views.items()
        }
        models = [{"model": s.name, "trained_on": s.trained_on, "classes": s.classes} for s in self.sources]
        with atomic_write(self.output_dir / "cases.json") as file:
            json.dump({"class_mapping": self.class_mapping, "models": models, "targets": columns}, file, indent=1)


def prediction_path(output_dir: str | Path, model: str, trained_on: str, view: str, target: str, case: str) -> Path:
    """Where :class:`OutOfDistributionMatrix` keeps the label map of a case; no two of different names are the same."""
    plain = [quote(name, safe=" ,()[]'").replace(".", "%2E") for name in (model, trained_on, view, target, case)]
    return Path(output_dir, "predictions", *plain[:-1], f"{plain[-1]}.nii.gz")
