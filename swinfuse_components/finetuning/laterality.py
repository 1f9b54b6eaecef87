"""Which axes may be mirrored for augmentation: none that a class is named for."""

import logging
import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

logger = logging.getLogger(__name__)

# for each axis of a right-anterior-superior volume: words found anywhere in a name, words and abbreviations that stand
# by themselves, and the two letters by which the names of a pair differ
_AXES = (
    (
        ("left", "right", "左", "右"),
        "l r lt rt lh rh li re sin dex dext sinister dexter sx dx lft rgt links rechts gauche droit droite izq der"
        " linke linker linkes linken rechte rechter rechtes rechten izquierda izquierdo derecha derecho"
        " sinistra sinistro destra destro esquerdo esquerda direito direita"
        " lv rv la ra lad lcx rca lca lpa rpa lul lll rul rml rll",
        "lr",
    ),
    (("anterior", "posterior"), "ant post ventral dorsal", "ap"),
    (("superior", "inferior", "upper", "lower"), "sup inf cranial caudal rostral", "si"),
)


def mirror_axes(description: Mapping[str, Any]) -> list[int]:
    """Spatial axes of a right-anterior-superior volume that may be mirrored for augmentation.

    All three, except those that a class of its ``labels`` is named for, however it is written (``Kidney_L``,
    ``lKidney``, ``LParotid``, ``ctx-lh``, ``Sup``), and those in which two names differ by one such letter (``RV`` and
    ``LV``): a mirrored left parotid gland, or the anterior part of a mirrored hippocampus, would be labelled as what it
    no longer is.

    Example::

        mirror_axes({"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}})  # [0, 2]
    """
    names = [str(name) for value, name in description["labels"].items() if int(value) != 0]
    axes = [axis for axis in range(3) if not _names_a_side(names, axis)]
    logger.info("axes mirrored for augmentation: %s, by the names of the classes %s", axes, names)
    return axes


def _names_a_side(names: Iterable[str], axis: int) -> bool:
    inside, alone, letters = _AXES[axis]
    lowered = sorted({name.lower() for name in names})
    words = {word.lower() for name in names for word in _words(name)}
    return (
        any(word in name for word in inside for name in lowered)
        or bool(words & set(alone.split()))
        or any(_differ_by(first, second, letters) for first, second in combinations(lowered, 2))
    )


def _words(name: str) -> list[str]:
    """``ctx-lh`` is ``ctx`` and ``lh``, ``lKidney`` is ``l`` and ``Kidney``, ``LParotid`` is ``L`` and ``Parotid``."""
    without_numbered = re.sub(r"(?<![A-Za-z])[A-Za-z]\d+", " ", name)  # the vertebra L1 has no side
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", without_numbered)


def _differ_by(first: str, second: str, letters: str) -> bool:
    if len(first) != len(second):
        return False
    different = [{a, b} for a, b in zip(first, second) if a != b]
    return different == [set(letters)]
