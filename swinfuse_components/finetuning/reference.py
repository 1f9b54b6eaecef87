"""Published figures, kept apart from anything measured here.

A. Talasila, M. Maity, U. D. Priyakumar, "Self-Supervised Modality-Agnostic Pre-Training of Swin Transformers",
Table 1: average Dice score in percent over five folds on the Medical Segmentation Decathlon. The paper gives no
standard deviations and no per-class scores; "(P)" marks the pre-trained variant.
"""

from __future__ import annotations

__all__ = ["PAPER_TABLE_1", "TABLE_1_TASKS", "paper_column"]

TABLE_1_TASKS = (
    "Brain", "Heart", "Hippocampus", "Liver", "Lung", "Pancreas", "Prostate", "Colon", "Hepatic Vessel", "Spleen",
)  # fmt: skip

PAPER_TABLE_1: dict[str, tuple[float, ...]] = {
    "nnU-Net": (64.50, 94.82, 89.76, 86.67, 72.78, 68.31, 84.14, 59.43, 70.14, 96.34),
    "Swin UNETR": (66.31, 94.32, 88.39, 87.42, 76.40, 72.91, 81.51, 60.35, 70.75, 95.79),
    "SwinFUSE": (65.17, 94.67, 86.76, 88.31, 74.39, 70.95, 80.63, 60.42, 69.78, 94.54),
    "SwinFUSE (P)": (66.34, 94.91, 87.91, 89.43, 75.35, 69.25, 81.62, 59.31, 71.61, 96.24),
}

# names of the tasks in the Decathlon's own dataset.json files that differ from the paper's
_ALIASES = {"brats": "brain", "braintumour": "brain", "leftatrium": "heart"}


def _key(name: str) -> str:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return _ALIASES.get(plain, plain)


def paper_column(task: str) -> dict[str, float]:
    """The paper's Dice (percent) of each model for a task by its name, empty for tasks the paper does not have.

    Example:
        >>> paper_column("Hippocampus")["SwinFUSE"]
        86.76
    """
    for index, name in enumerate(TABLE_1_TASKS):
        if _key(name) == _key(task):
            return {model: row[index] for model, row in PAPER_TABLE_1.items()}
    return {}
