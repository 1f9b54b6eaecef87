"""Figures of the paper's Tables 1 and 2. None of them was measured by this software.

Talasila, Maity and Priyakumar, "Self-Supervised Modality-Agnostic Pre-Training of Swin Transformers", arXiv:2405.12781.
Table 1: mean Dice (percent) over five folds on the Medical Segmentation Decathlon; "(P)" marks the pre-trained variant.
Table 2: Dice of Swin UNETR and SwinFUSE, fine-tuned on a CT task and tested on an MRI task. Its row labels are lost in
the text at hand and taken from the order of the tasks there; a figure in the prose confirms only the first. The prose
contradicts three cells: it gives 0.16 and 0.26 for Pancreas to Prostate, which stand at Lung to Hippocampus, and 0.27
as the largest gain, which is 0.29 (Spleen to Heart).
"""

import pandas as pd

TASKS = "Brain,Heart,Hippocampus,Liver,Lung,Pancreas,Prostate,Colon,Hepatic Vessel,Spleen".split(",")
TABLE_1: dict[str, tuple[float, ...]] = {
    "nnU-Net": (64.50, 94.82, 89.76, 86.67, 72.78, 68.31, 84.14, 59.43, 70.14, 96.34),
    "Swin UNETR": (66.31, 94.32, 88.39, 87.42, 76.40, 72.91, 81.51, 60.35, 70.75, 95.79),
    "SwinFUSE": (65.17, 94.67, 86.76, 88.31, 74.39, 70.95, 80.63, 60.42, 69.78, 94.54),
    "SwinFUSE (P)": (66.34, 94.91, 87.91, 89.43, 75.35, 69.25, 81.62, 59.31, 71.61, 96.24),
}
TARGETS = ("Brain", "Heart", "Prostate", "Hippocampus")
TABLE_2: dict[str, tuple[tuple[float, float], ...]] = {
    "Liver": ((0.22, 0.47), (0.31, 0.52), (0.19, 0.32), (0.18, 0.33)),
    "Lung": ((0.21, 0.29), (0.27, 0.34), (0.20, 0.40), (0.16, 0.26)),
    "Pancreas": ((0.15, 0.32), (0.30, 0.46), (0.22, 0.34), (0.23, 0.30)),
    "Hepatic Vessel": ((0.25, 0.32), (0.21, 0.39), (0.26, 0.44), (0.25, 0.48)),
    "Spleen": ((0.19, 0.39), (0.24, 0.53), (0.29, 0.49), (0.27, 0.38)),
    "Colon": ((0.17, 0.35), (0.22, 0.47), (0.29, 0.43), (0.25, 0.41)),
}
UNSURE = {("Pancreas", "Prostate"), ("Lung", "Hippocampus"), ("Spleen", "Heart")}
# names in the Decathlon's own dataset.json files that differ from the paper's
_ALIASES = {"brats": "brain", "braintumour": "brain", "leftatrium": "heart"}


def _key(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return _ALIASES.get(plain, plain)


def paper_column(task: str) -> dict[str, float]:
    """The paper's Dice (percent) of each model for a task by its name, empty for tasks that the paper does not have.

    Example:
        >>> paper_column("Hippocampus")["SwinFUSE"]
        86.76
    """
    places = [place for place, name in enumerate(TASKS) if _key(name) == _key(task)]
    return {model: row[places[0]] for model, row in TABLE_1.items()} if places else {}


def paper_table2() -> pd.DataFrame:
    """Table 2, a line for each cell: both models' Dice, and whether the row's label or the figures are in doubt."""
    cells = [
        (source, target, *dice, source != "Liver", (source, target) in UNSURE)
        for source, row in TABLE_2.items()
        for target, dice in zip(TARGETS, row)
    ]
    columns = ["fine_tuned_on", "tested_on", "swin_unetr", "swinfuse", "unsure_row", "unsure_cell"]
    return pd.DataFrame(cells, columns=columns)
