"""Collect evaluations into the paper's Table 1.

    python scripts/table.py runs/ --output table

reads every ``evaluation.json`` below ``runs/`` and writes ``table.md`` and ``table.csv``. Runs that were not trained
and scored on the same patients are refused (``--allow_mixed True`` to override); the paper's figures stand beside those
measured here and are marked.
"""

from __future__ import annotations

from pathlib import Path

import fire

from swinfuse_components.engines import short_errors
from swinfuse_components.evaluation.folds_table import folds_csv, folds_markdown, folds_table, read_evaluations


def main(*runs: str, output: str | None = None, paper: bool = True, allow_mixed: bool = False) -> None:
    """Print the table of ``runs`` (files or folders); with ``output`` write <output>.md and <output>.csv as well."""
    rows = folds_table(read_evaluations([str(run) for run in runs]), paper=paper, allow_mixed=allow_mixed)
    print(folds_markdown(rows))
    if output is not None:
        Path(f"{output}.md").write_text(folds_markdown(rows), encoding="utf-8")
        Path(f"{output}.csv").write_text(folds_csv(rows), encoding="utf-8")


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
