"""From measurements to a table: every variant as a ratio to the reference of the same round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .cases import CASES


def summarise(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a case, variant and malloc setting.

    ``speed`` is how many times faster than the reference with the same malloc setting, ``speed_default`` than the
    reference with glibc's own: (median, least, largest) over the rounds, each from one round; ``memory`` the ratio of
    the median peaks. None where the reference is missing.
    """
    seconds: dict[tuple[str, str, str], dict[int, float]] = {}
    peaks: dict[tuple[str, str, str], list[float]] = {}
    errors: dict[tuple[str, str, str], str] = {}
    for item in results["measurements"]:
        key = (item["case"], item["variant"], item["malloc"])
        seconds.setdefault(key, {})
        if "error" in item:
            errors[key] = " ".join(item["error"])
            continue
        seconds[key][item["round"]] = statistics.median(item["seconds"])
        peaks.setdefault(key, []).append(item["peak_gib"])
    rows = []
    for (case, variant, malloc), own in seconds.items():
        first = CASES[case][2]
        row: dict[str, Any] = {"case": case, "variant": variant, "malloc": malloc}
        row["error"] = errors.get((case, variant, malloc))
        row["seconds"] = statistics.median(own.values()) if own else None
        row["peak_gib"] = statistics.median(peaks[case, variant, malloc]) if own else None
        row["speed"] = _ratio(seconds.get((case, first, malloc), {}), own)
        row["speed_default"] = _ratio(seconds.get((case, first, "default"), {}), own)
        reference_peaks = peaks.get((case, first, malloc))
        row["memory"] = row["peak_gib"] / statistics.median(reference_peaks) if reference_peaks and own else None
        rows.append(row)
    return rows


def to_markdown(results: Mapping[str, Any]) -> str:
    """The summary as Markdown, and below it the shares of the time where they were measured."""
    settings = results["settings"]
    lines = [
        f"Region {settings['roi_size']} cubed, feature size {settings['feature_size']}, "
        f"window {settings['window_size']}, batch {settings['batch_size']}, {results['threads']} thread(s), "
        f"torch {results['torch']}, "
        f"{results['device_name']}.",
        "",
        "| case | variant | malloc | seconds | times as fast as the reference (range) | peak GiB | of the reference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summarise(results):
        start = f"| {row['case']} | {row['variant']} | {row['malloc']} | "
        if row["seconds"] is None:
            lines.append(f"{start}failed: {row['error']} | | | |")
            continue
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
        ratio = _show(row["speed"])
        if row["malloc"] != "default" and row["speed_default"] is not None:
            ratio += f"; {_show(row['speed_default'])} against default malloc"
        lines.append(f"{start}{row['seconds']:.3g} | {ratio} | {row['peak_gib']:.2f} | {memory} |")
    for item in results["measurements"]:
        if "shares" in item:
            parts = ", ".join(f"{name} {share:.0%}" for name, share in item["shares"].items() if share >= 0.005)
            lines += ["", f"{item['case']}, {item['variant']}, malloc {item['malloc']}: {parts}."]
    return "\n".join(lines) + "\n"


def _ratio(reference: Mapping[int, float], own: Mapping[int, float]) -> tuple[float, float, float] | None:
    ratios = [reference[number] / own[number] for number in own if number in reference]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _show(ratio: tuple[float, float, float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"
