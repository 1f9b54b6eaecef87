"""Figures of the paper, for reading beside one's own. None of them was measured by this software.

Source: Talasila, Maity and Priyakumar, "Self-Supervised Modality-Agnostic Pre-Training of Swin Transformers",
arXiv:2405.12781, Table 2: Dice of Swin UNETR and of SwinFUSE, fine-tuned on a CT task of the Medical Segmentation
Decathlon and tested on an MRI task.

In the text at hand the row labels of the table are lost. They are taken in the order in which the tasks are named for
it (Liver, Lung, Pancreas, Hepatic Vessel, Spleen, Colon), and only the first row is confirmed by a figure in the prose
(Liver to Brain, 0.22 and 0.47). Two statements of the prose do not fit the table:

- "fine-tuning on the Pancreas and testing on the Prostate: 0.16 and 0.26". The table has 0.22 and 0.34 there; 0.16 and
  0.26 stand at Lung to Hippocampus. So the order of the rows, or the sentence, is wrong.
- "a minimum improvement of 7% and a maximum of 27%". The smallest difference in the table is 0.07, as said; the largest
  is 0.29 (Spleen to Heart), not 0.27.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "arXiv:2405.12781, Table 2"
MODELS = ("Swin UNETR", "SwinFUSE")
SOURCES = ("Liver", "Lung", "Pancreas", "Hepatic Vessel", "Spleen", "Colon")
TARGETS = ("Brain", "Heart", "Prostate", "Hippocampus")

_TABLE = (
    ((0.22, 0.47), (0.31, 0.52), (0.19, 0.32), (0.18, 0.33)),
    ((0.21, 0.29), (0.27, 0.34), (0.20, 0.40), (0.16, 0.26)),
    ((0.15, 0.32), (0.30, 0.46), (0.22, 0.34), (0.23, 0.30)),
    ((0.25, 0.32), (0.21, 0.39), (0.26, 0.44), (0.25, 0.48)),
    ((0.19, 0.39), (0.24, 0.53), (0.29, 0.49), (0.27, 0.38)),
    ((0.17, 0.35), (0.22, 0.47), (0.29, 0.43), (0.25, 0.41)),
)

#: rows whose label only the order of the text gives
UNSURE_ROWS = frozenset(SOURCES[1:])
#: single cells that the prose contradicts
UNSURE_CELLS = frozenset({("Pancreas", "Prostate"), ("Lung", "Hippocampus"), ("Spleen", "Heart")})


class PaperCell(NamedTuple):
    """One cell: Dice of both models, and whether its row label or its figures are in doubt."""

    swin_unetr: float
    swinfuse: float
    unsure_row: bool
    unsure_cell: bool


def table2() -> dict[tuple[str, str], PaperCell]:
    """The paper's Table 2 as {(CT task fine-tuned on, MRI task tested on): cell}."""
    return {
        (source, target): PaperCell(*_TABLE[i][j], source in UNSURE_ROWS, (source, target) in UNSURE_CELLS)
        for i, source in enumerate(SOURCES)
        for j, target in enumerate(TARGETS)
    }


def table2_markdown() -> str:
    """The table in the paper's own ``1/2`` cells; ``?`` marks what is unsure."""
    cells = table2()
    lines = [
        f"Paper's figures ({SOURCE}), not measured here. Dice of Swin UNETR / SwinFUSE, "
        "fine-tuned on a CT task (rows), tested on an MRI task (columns).",
        "",
        "| fine-tuned on | " + " | ".join(TARGETS) + " |",
        "|---" * (len(TARGETS) + 1) + "|",
    ]
    for source in SOURCES:
        row = [source + (" (?)" if source in UNSURE_ROWS else "")]
        for target in TARGETS:
            cell = cells[source, target]
            row.append(f"{cell.swin_unetr:.2f}/{cell.swinfuse:.2f}" + (" ?" if cell.unsure_cell else ""))
        lines.append("| " + " | ".join(row) + " |")
    lines += [
        "",
        "(?) row label taken from the order of the tasks in the text. ? the prose contradicts the cell: "
        "it gives 0.16/0.26 for Pancreas to Prostate, and 0.27 as the largest gain.",
    ]
    return "\n".join(lines) + "\n"
