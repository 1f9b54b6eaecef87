"""How often CT and MRI are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def modality_weights(
    items: Sequence[Mapping], ratio: Mapping[str, float] | None = None, *, modality_key: str = "modality"
) -> list[float]:
    """Weights for ``torch.utils.data.WeightedRandomSampler`` (or MONAI's ``DistributedWeightedRandomSampler``).

    Args:
        items: a data list whose items say their modality.
        ratio: how often each modality is drawn relative to the others, e.g. ``{"ct": 3, "mr": 1}``; equal by default,
            however many volumes there are of each. 0 leaves a modality out.
        modality_key: key of the modality in an item.

    Returns:
        One weight an item; they sum to 1.

    Raises:
        ValueError: if a modality has no share in ``ratio``, a share is negative, or nothing would be drawn.

    Example:
        >>> modality_weights([{"modality": "ct"}, {"modality": "mr"}, {"modality": "mr"}], {"ct": 1, "mr": 1})
        [0.5, 0.25, 0.25]
    """
    missing = [number for number, item in enumerate(items) if modality_key not in item]
    if missing:
        raise ValueError(f"items {missing[:5]} of the data list have no '{modality_key}'")
    counts = Counter(str(item[modality_key]) for item in items)
    shares = dict.fromkeys(counts, 1.0) if ratio is None else {str(k): float(v) for k, v in ratio.items()}
    unknown = sorted(set(counts) - set(shares))
    if unknown or any(not 0 <= share < float("inf") for share in shares.values()):
        raise ValueError(f"ratio={dict(ratio or {})}: expected a number >= 0 for each of {sorted(counts)}")
    total = sum(shares[modality] for modality in counts)
    if total <= 0:
        raise ValueError(f"ratio={dict(ratio or {})}: nothing is left to draw from {dict(counts)}")
    return [shares[str(item[modality_key])] / counts[str(item[modality_key])] / total for item in items]
