"""From measurements to a table: every variant as a ratio to the reference of the same round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .cases import CASES


def summarise(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a case, variant and malloc setting.

    ``speed`` is how many times faster than the reference with the same malloc setting, ``speed_default`` than the
    reference with glibc's own: (median, least, largest) over the rounds, each from one round. They compare the seconds
    of the processes, ``speed_clock`` and ``speed_clock_default`` those of the clock, which tell more with several
    threads and an idle machine. ``memory`` is the ratio of the median peaks. None where the reference is missing.
    """
    seconds: dict[tuple[str, str, int, str], dict[int, float]] = {}
    clock: dict[tuple[str, str, int, str], dict[int, float]] = {}
    peaks: dict[tuple[str, str, int, str], list[float]] = {}
    errors: dict[tuple[str, str, int, str], str] = {}
    for item in results["measurements"]:
        key = (item["case"], item["variant"], item["batch"], item["malloc"])
        seconds.setdefault(key, {})
        if "error" in item:
            errors[key] = " ".join(item["error"])
            continue
        seconds[key][item["round"]] = statistics.median(item["seconds"])
        clock.setdefault(key, {})[item["round"]] = statistics.median(item["clock"])
        peaks.setdefault(key, []).append(item["peak_gib"])
    rows = []
    for key, own in seconds.items():
        case, variant, batch, malloc = key
        reference, default = (case, CASES[case][2], batch, malloc), (case, CASES[case][2], batch, "default")
        row: dict[str, Any] = {"case": case, "variant": variant, "batch": batch, "malloc": malloc}
        row["error"] = errors.get(key)
        row["seconds"] = statistics.median(own.values()) if own else None
        row["peak_gib"] = statistics.median(peaks[key]) if own else None
        row["speed"] = _ratio(seconds.get(reference, {}), own)
        row["speed_default"] = _ratio(seconds.get(default, {}), own)
        clock_of = clock.get(key, {})
        row["clock"] = statistics.median(clock_of.values()) if clock_of else None
        row["speed_clock"] = _ratio(clock.get(reference, {}), clock_of)
        row["speed_clock_default"] = _ratio(clock.get(default, {}), clock_of)
        reference_peaks = peaks.get(reference)
        row["memory"] = row["peak_gib"] / statistics.median(reference_peaks) if reference_peaks and own else None
        rows.append(row)
    return rows


def to_markdown(results: Mapping[str, Any]) -> str:
    """The summary as Markdown, and below it the shares of the time where they were measured."""
    settings = results["settings"]
    lines = [
        f"Region {settings['roi_size']} cubed, feature size {settings['feature_size']}, "
        f"window {settings['window_size']}, {results['threads']} thread(s), "
        f"torch {results['torch']}, "
        f"{results['device_name']}.",
        "",
        "| case | variant | batch | malloc | seconds of process | times as fast as the reference (range) "
        "| of the clock | times as fast | peak GiB | of the reference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summarise(results):
        start = f"| {row['case']} | {row['variant']} | {row['batch']} | {row['malloc']} | "
        if row["seconds"] is None:
            lines.append(f"{start}failed: {row['error']} | | | | | |")
            continue
        memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
        ratio, by_clock = _show(row["speed"]), _show(row["speed_clock"])
        if row["malloc"] != "default" and row["speed_default"] is not None:
            ratio += f"; {_show(row['speed_default'])} against default malloc"
            by_clock += f"; {_show(row['speed_clock_default'])} against default malloc"
        times = f"{row['seconds']:.3g} | {ratio} | {row['clock']:.3g} | {by_clock}"
        lines.append(f"{start}{times} | {row['peak_gib']:.2f} | {memory} |")
    for item in results["measurements"]:
        if "shares" in item:
            parts = ", ".join(f"{name} {share:.0%}" for name, share in item["shares"].items() if share >= 0.005)
            name = f"{item['case']}, {item['variant']}, batch {item['batch']}, malloc {item['malloc']}"
            lines += ["", f"{name}: {parts}."]
    return "\n".join(lines) + "\n"


def _ratio(reference: Mapping[int, float], own: Mapping[int, float]) -> tuple[float, float, float] | None:
    ratios = [reference[number] / own[number] for number in own if number in reference]
    return (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _show(ratio: tuple[float, float, float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f})"
