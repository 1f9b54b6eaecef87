"""Imaging modalities: how their intensities are scaled, which names mean them, and what a sane file holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCALINGS = ("window", "percentiles", "zscore")
VALUES = ("hounsfield", "suv", "any")


@dataclass(frozen=True)
class Modality:
    """A kind of image.

    Attributes:
        name: in lower case.
        scaling: ``"window"`` maps fixed values to [0, 1]; ``"percentiles"`` maps percentiles of the volume to [0, 1];
            ``"zscore"`` subtracts the volume's mean and divides by its standard deviation.
        limits: the two ends of the window, or the two percentiles.
        nonzero: take percentiles, mean and standard deviation over the voxels that are not 0.
        channels: regular expression of the channel names that mean this modality, matched as a whole, in any case.
        values: what a sane file holds: ``"hounsfield"``, ``"suv"``, or ``"any"``.
    """

    name: str
    scaling: str = "percentiles"
    limits: Sequence[float] = (0.5, 99.5)
    nonzero: bool = False
    channels: str = ""
    values: str = "any"

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        if self.scaling not in SCALINGS or self.values not in VALUES:
            raise ValueError(
                f"modality '{self.name}': scaling {self.scaling!r}, values {self.values!r};"
                f" expected one of {SCALINGS} and one of {VALUES}"
            )
        if len(self.limits) != 2 or not self.limits[0] < self.limits[1]:
            raise ValueError(f"modality '{self.name}': limits {list(self.limits)}, expected two increasing numbers")
        if self.scaling == "percentiles" and not 0 <= self.limits[0] < self.limits[1] <= 100:
            raise ValueError(f"modality '{self.name}': percentiles {list(self.limits)}, expected numbers from 0 to 100")
        re.compile(self.channels)


REGISTRY: dict[str, Modality] = {}


def register_modality(name: str, **settings: Any) -> str:
    """Add a modality, or replace one, by the settings of :class:`Modality`; returns its name."""
    REGISTRY[name.lower()] = Modality(name.lower(), **settings)
    return name.lower()


register_modality(
    "ct", scaling="window", limits=(-1000, 1000), channels="(ce[-_ ]?)?ct|cect|ncct|cta", values="hounsfield"
)
register_modality(
    "mr", channels=r"mri?|t1|t1w|t1[-_ ]?(gd|ce|c|post)|t1n|t2|t2w|t2f|t2[-_ ]?star|flair|adc|dwi|pd|pdw|swi|bold|fmri"
)
register_modality("pet", scaling="window", limits=(0, 20), channels="pet|pt|suv|fdg([-_ ]?pet)?", values="suv")
register_modality("us", channels="us|ultrasound")
register_modality("other")


def path_keys(item: Mapping) -> list[str]:
    """The keys of an item under which it has paths of volumes."""
    return [key for key in ("image", *REGISTRY, "label", "mask") if key in item]


def get_modality(modality: str | Mapping[str, Any]) -> Modality:
    """A registered modality by its name or by a channel that means it; a dictionary ``{"name": …}`` registers one.

    ValueError if there is none of that name.
    """
    name = register_modality(**modality) if isinstance(modality, Mapping) else modality_of_word(str(modality))
    if name is None:
        raise ValueError(
            f"modality {modality!r}: expected one of {sorted(REGISTRY)}, or a new one as a dictionary such as"
            " {'name': 'oct', 'scaling': 'percentiles', 'limits': [0.5, 99.5]}"
        )
    return REGISTRY[name]


def modality_of_channels(channels: Sequence[str]) -> str:
    """The one modality that all the channel names mean, e.g. ``["T1", "FLAIR"]`` gives ``"mr"``; else ValueError."""
    kinds = {modality_of_word(name) or name for name in channels}
    if len(kinds) == 1 and kinds <= set(REGISTRY):
        return kinds.pop()
    raise ValueError(
        f"cannot tell one modality from the channels {list(channels)}: say it with '--modality' ({sorted(REGISTRY)})"
    )


def modality_of_word(word: str) -> str | None:
    """The modality that a word of a file or channel name means, e.g. ``"T1w"``: ``"mr"``; None if it means none."""
    word = word.strip().lower()
    found = (n for n, rule in REGISTRY.items() if word == n or rule.channels and re.fullmatch(rule.channels, word))
    return next(found, None)


def implausible_values(values: np.ndarray, modality: Modality) -> str | None:
    """Why the values of a volume cannot be what its modality says, or None."""
    low, high = float(values.min()), float(values.max())
    if modality.values == "hounsfield":
        return _not_hounsfield(values, low, high)
    if modality.values == "suv" and (low < -10 or high > 1000):
        return f"range {low:g} to {high:g}, expected standardised uptake values (SUV, 0 to about 50)"
    if modality.name == "mr" and low <= -900:
        return f"range {low:g} to {high:g} looks like CT, declared as MRI"
    return None


def _not_hounsfield(values: np.ndarray, low: float, high: float) -> str | None:
    """Air or fat lie below 0 in every CT of a body; padding (-2000, -3024) does not count as either."""
    if low >= 0:
        return f"no value below 0 (range {low:g} to {high:g}): rescaled or shifted, expected Hounsfield units"
    if high - low < 50:
        return f"range {low:g} to {high:g} is too narrow for Hounsfield units: rescaled"
    if low < -10000 or high > 40000:
        return f"range {low:g} to {high:g} lies outside any CT's"
    body = values.ravel()[:: max(values.size // 2**20, 1)]
    body = body[body > -1100]
    tissue = body[body > body.min(initial=0) + 1]
    if tissue.size and tissue.min() > body.min() + 200:  # one value, far below all others: padding
        body = tissue
    if body.size and np.mean(body < -50) < 0.01 and np.mean((body > 824) & (body < 1224)) > 0.05:
        return "shifted by about 1024: soft tissue lies near 1000 and, but for the padding, nothing lies below 0"
    return None
