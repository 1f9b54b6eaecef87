"""One self-contained HTML page of an evaluation and of training runs: ``python scripts/report.py --evaluation DIR``."""

from __future__ import annotations

import fire

from swinfuse_components.engines import short_errors
from swinfuse_components.evaluation.report import write_report

if __name__ == "__main__":
    short_errors()
    fire.Fire(write_report)
