"""Dice of each region under its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from monai.handlers import MeanDice

__all__ = ["dice_of_regions"]


def dice_of_regions(regions: Iterable[str]) -> dict[str, MeanDice]:
    """One metric for each region, so that every log, table and tracker gets a number and not a vector.

    Args:
        regions: names of the channels of ``pred`` and ``label``, in their order.

    Returns:
        ``{"val_dice_<region>": handler}``; what trackers refuse in a name becomes an underscore.
    """

    def channel(number: int) -> Callable[[Any], tuple[list[torch.Tensor], ...]]:
        return lambda output: tuple([item[key][number : number + 1] for item in output] for key in ("pred", "label"))

    return {
        "val_dice_" + re.sub(r"[^\w. -]", "_", name): MeanDice(
            include_background=True, output_transform=channel(number)
        )
        for number, name in enumerate(regions)
    }
