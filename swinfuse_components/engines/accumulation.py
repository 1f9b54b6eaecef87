"""MONAI's trainer, with gradient accumulation where the MONAI that runs has it."""

from __future__ import annotations

import inspect
from typing import Any

import monai
from monai.engines import SupervisedTrainer

HAS_ACCUMULATION = "accumulation_steps" in inspect.signature(SupervisedTrainer).parameters


def supervised_trainer(*, accumulation_steps: int = 1, **options: Any) -> SupervisedTrainer:
    """Make MONAI's ``SupervisedTrainer``; name ``accumulation_steps`` to it only when there is anything to accumulate.

    MONAI 1.5 has no such argument and takes a step after every batch, which is what 1 asks for.

    Args:
        accumulation_steps: batches whose gradients make one step.
        options: all other arguments of ``SupervisedTrainer``.

    Raises:
        ValueError: accumulation asked of a MONAI that has none.
    """
    if HAS_ACCUMULATION:
        return SupervisedTrainer(accumulation_steps=accumulation_steps, **options)
    if accumulation_steps != 1:
        raise ValueError(
            f"accumulation_steps is {accumulation_steps}, and MONAI {monai.__version__} cannot accumulate gradients: "
            "expected 1, or MONAI 1.6 or later"
        )
    return SupervisedTrainer(**options)
