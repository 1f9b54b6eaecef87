"""One self-contained HTML page of an evaluation and of training runs: ``python scripts/report.py --evaluation DIR``."""

from __future__ import annotations

import fire

from swinfuse_components.evaluation.pages import write_report

if __name__ == "__main__":
    fire.Fire(write_report)
