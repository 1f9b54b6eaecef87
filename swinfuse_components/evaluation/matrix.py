"""Models by data sets: every model on every target, case by case."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import nibabel as nib
import numpy as np
from filelock import FileLock, Timeout

from ..data import same_patients
from .records import CaseTable, Row, write_csv
from .scores import score_case
from .sources import Source
from .targets import Case, Target, case_name

logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """A case that could not be scored, and why. No model is named where the case itself could not be read."""

    target: str
    case: str
    model: str
    reason: str


class OutOfDistributionMatrix:
    """Score every source on every target (the paper's Table 2, Section 3).

    Each model is loaded once and each case read once: the loop goes over targets and cases outside, over models inside.
    Scores go to ``cases.csv`` as they come; a second run finds them there and computes what is missing, or what a
    changed checkpoint, setting or file has made stale.

    Args:
        sources: models, predictions and baselines: rows.
        targets: data sets: columns.
        output_dir: where ``cases.csv``, ``failures.csv`` and the predictions go.
        class_mapping: ``{class of the source: class of the target}`` where the same structure exists in both. None
            compares the union of all foreground with the union of all foreground, as the paper does.
        on_leak: what to do with a case whose patient a source was trained on: ``drop`` it for that source, or
            ``error``.
        keep_predictions: write the label maps of networks to ``output_dir/predictions``, for pictures.

    Raises:
        ValueError: on an unknown ``on_leak``.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        targets: Sequence[Target],
        output_dir: str | Path,
        *,
        class_mapping: Mapping[str, str] | None = None,
        on_leak: str = "drop",
        keep_predictions: bool = True,
    ) -> None:
        if on_leak not in ("drop", "error"):
            raise ValueError(f"on_leak is {on_leak!r}: expected 'drop' or 'error'")
        self.sources, self.targets, self.output_dir = list(sources), list(targets), Path(output_dir)
        self.class_mapping = None if class_mapping is None else dict(class_mapping)
        self.on_leak, self.keep_predictions = on_leak, keep_predictions
        self.failures: list[Failure] = []
        self._fingerprints: dict[int, str] = {}

    def problems(self) -> list[str]:
        """Everything that would go wrong, each in a sentence."""
        found = [] if self.sources else ["there is no model to test"]
        found += [] if self.targets else ["there is no data set to test on"]
        names = [(s.name, s.trained_on) for s in self.sources]
        found += [
            f"two models are called {n}: give them different names"
            for n in sorted({n for n in names if names.count(n) > 1})
        ]
        columns = [view for t in self.targets for view in t.views]
        found += [f"two targets are called {c}" for c in sorted({c for c in columns if columns.count(c) > 1})]
        for target in self.targets:
            found += self._class_problems(target)
            for source in self.sources:
                found += source.problems(target)
                leaked = sorted(source.training_patients & target.patients)
                if leaked and self.on_leak == "error":
                    found.append(
                        f"{source.name} ({source.trained_on}) was trained on patients of {target.name}: {leaked}"
                    )
                elif leaked and len(leaked) == len(target.patients):
                    found.append(f"{source.name} ({source.trained_on}) was trained on every patient of {target.name}")
        return list(dict.fromkeys(found))

    def _class_problems(self, target: Target) -> list[str]:
        if self.class_mapping is None:
            return []
        found = []
        for ours, theirs in self.class_mapping.items():
            if theirs not in (target.classes or {}):
                found.append(f"target {target.name} has no class {theirs!r}: it has {sorted(target.classes or {})}")
            for source in self.sources:
                # a trivial baseline has no classes and stands for each of them
                if source.classes is not None and ours not in source.classes:
                    found.append(
                        f"model {source.name} ({source.trained_on}) has no class {ours!r}: "
                        f"it has {sorted(source.classes)}"
                    )
        return found

    def check(self) -> None:
        """Load every model and compare it with every target, before anything is computed.

        Raises:
            ValueError: with all that is wrong, one line each.
        """
        found = self.problems()
        if found:
            raise ValueError("the evaluation cannot start:\n" + "\n".join(f"- {problem}" for problem in found))
        self.output_dir.mkdir(parents=True, exist_ok=True)

    def _fingerprint(self, source: Source, target: Target, item: Mapping[str, Any]) -> str:
        if id(source) not in self._fingerprints:
            self._fingerprints[id(source)] = source.fingerprint()
        text = f"{self._fingerprints[id(source)]}|{self.class_mapping}|{target.classes}|{target.fingerprint(item)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _classes(self, source: Source, target: Target) -> dict[str, tuple[Sequence[int], Sequence[int]]] | None:
        if self.class_mapping is None:
            return None
        classes = target.classes or {}
        return {
            theirs: ([1] if source.classes is None else [source.classes[ours]], [classes[theirs]])
            for ours, theirs in self.class_mapping.items()
        }

    def run(self) -> list[Row]:
        """Compute what is not there yet.

        Returns:
            all rows of this matrix.

        Raises:
            ValueError: see :meth:`check`.
            RuntimeError: if another evaluation writes into the folder, or not one case could be scored
                (``failures.csv`` says why).
        """
        self.check()
        try:
            with FileLock(self.output_dir / ".lock", timeout=0):
                return self._run(CaseTable(self.output_dir / "cases.csv"))
        except Timeout as error:
            raise RuntimeError(f"another evaluation is writing into {self.output_dir}") from error

    def _run(self, table: CaseTable) -> list[Row]:
        self.failures = []
        wanted: dict[tuple[str, ...], str] = {
            (source.name, source.trained_on, view, column, case_name(item)): self._fingerprint(source, target, item)
            for target in self.targets
            for item in target.items
            for source, column, view in self._plan(target, item)
        }
        table.rows = list({(*row.key, row.label): row for row in table.rows}.values())  # once each, the last one
        counts = Counter(row.key for row in table.rows if wanted.get(row.key) == row.fingerprint)
        done = {key for key, count in counts.items() if count == len(self.class_mapping or ["foreground"])}
        kept = [row for row in table.rows if row.key in done or row.key not in wanted]
        if table.rows:
            logger.info("%s: %d of %d scores are there already", table.path, len(done), len(wanted))
        table.replace(kept)
        for target in self.targets:
            for number, item in enumerate(target.items, start=1):
                todo = [
                    (source, column, view)
                    for source, column, view in self._plan(target, item)
                    if (source.name, source.trained_on, view, column, case_name(item)) not in done
                ]
                if todo:
                    logger.info("%s: case %d of %d, %s", target.name, number, len(target.items), case_name(item))
                    self._case(target, item, todo, table)
        self._write_index()
        fields = Failure._fields
        write_csv(self.output_dir / "failures.csv", [dict(zip(fields, f)) for f in self.failures])
        order = {key: place for place, key in enumerate(wanted)}  # whatever was computed first
        rows = sorted((row for row in table.rows if row.key in wanted), key=lambda row: order[row.key])
        if not rows:
            reason = self.failures[0].reason if self.failures else "every patient was trained on"
            raise RuntimeError(f"not one case could be scored, see {self.output_dir / 'failures.csv'}: {reason}")
        return rows

    def _write_index(self) -> None:
        """Write where the volumes of every column lie, for whoever draws them later."""
        columns = {
            column: {
                "modality": target.modality,
                "classes": target.classes,
                "channel": channel,
                "cases": {case_name(item): {"image": item["image"], "label": item["label"]} for item in target.items},
            }
            for target in self.targets
            for column, channel in target.views.items()
        }
        models = [{"model": s.name, "trained_on": s.trained_on, "classes": s.classes} for s in self.sources]
        index = {"class_mapping": self.class_mapping, "models": models, "targets": columns}
        (self.output_dir / "cases.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    def _plan(self, target: Target, item: Mapping[str, Any]) -> list[tuple[Source, str, str]]:
        """What one case is to be scored by: source, column and view; no source that was trained on its patient."""
        return [
            (source, column, view)
            for source in self.sources
            if not same_patients([str(item.get("patient"))]) & source.training_patients
            for column in target.views
            for view in source.views
        ]

    def _case(
        self, target: Target, item: Mapping[str, Any], todo: Sequence[tuple[Source, str, str]], table: CaseTable
    ) -> None:
        """Read one case and score it by every source that lacks it."""
        name = case_name(item)
        try:
            case = target.load(item)
        except Exception as error:  # whatever a reader raises for a broken file
            self._fail(target.name, name, "", f"{item['image']} with {item['label']}: {type(error).__name__}: {error}")
            return
        for source, column, view in todo:
            start = time.perf_counter()
            try:
                labels = source.predict(case.only(target.views[column]), view)
                scores = score_case(labels, case.truth, case.spacing, self._classes(source, target))
            except Exception as error:  # one model's trouble must not cost the others their results
                self._fail(column, name, f"{source.name} ({source.trained_on})", f"{type(error).__name__}: {error}")
                continue
            seconds = time.perf_counter() - start
            head = (source.name, source.trained_on, view, column, name, str(item.get("patient", name)))
            mark = self._fingerprint(source, target, item)
            if self.keep_predictions and source.keeps_predictions:
                self._save(labels, case, prediction_path(self.output_dir, *head[:5]))
            table.append(Row(*head, label, *score, seconds, mark) for label, score in scores.items())

    def _fail(self, target: str, case: str, model: str, reason: str) -> None:
        failure = Failure(target, case, model, " ".join(reason.split())[:400])
        logger.error("%s, case %s%s: %s", target, case, f", {model}" if model else "", failure.reason)
        self.failures.append(failure)

    @staticmethod
    def _save(labels: np.ndarray, case: Case, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = getattr(case.image, "affine", np.eye(4))
        nib.save(nib.Nifti1Image(labels, np.asarray(affine, dtype=np.float64)), path)


def prediction_path(output_dir: str | Path, model: str, trained_on: str, view: str, target: str, case: str) -> Path:
    """Where :class:`OutOfDistributionMatrix` keeps the label map of a case; other names never share a path."""
    plain = [quote(name, safe=" ,()[]'").replace(".", "%2E") for name in (model, trained_on, view, target, case)]
    return Path(output_dir, "predictions", *plain[:-1], f"{plain[-1]}.nii.gz")
