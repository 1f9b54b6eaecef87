"""Check data sets in any layout of docs/data.md; exit code 1 when a finding is fatal.

python scripts/validate.py DATASET_DIR [--roi_size 96] [--contents False] [--modality pet] [--patient_pattern …]
                           [--workers 8] [--record FILE]

With --record a check of many files that was interrupted goes on where it was.
"""

import sys
from pathlib import Path

import fire

from swinfuse_components.data import find_problems, layout_of, read_source, read_task
from swinfuse_components.engines import short_errors


def data_sets(folder: Path) -> list[tuple[str, Path]]:
    """(layout, folder) of the data set in a folder, or of those one or two levels below."""
    layout = layout_of(folder)
    children = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    found = [(layout_of(child), child) for child in children if layout != "msd"]
    mixed = {name for name, _ in found} - {layout, "images", None} or any(folder.glob("*/*/dataset.json"))
    if layout and layout != "images" and not mixed:
        return [(layout, folder)]
    for child in [child for name, child in found if name == "images"]:
        found += [(layout_of(path), path) for path in sorted(child.iterdir()) if path.is_dir()]
    named = [(name, path) for name, path in found if name and name != "images"]
    return named or [("images", folder)]


def main(
    dataset_dir: str,
    roi_size: int | None = None,
    contents: bool = True,
    modality: str | None = None,
    patient_pattern: str | None = None,
    workers: int | None = None,
    record: str | None = None,
) -> None:
    """Print all the findings of the data sets in `dataset_dir`."""
    fatal = 0
    for layout, folder in data_sets(Path(str(dataset_dir))):
        try:
            facts: dict = {}
            if layout in ("msd", "brats"):
                task, items = read_task(folder, modality=modality, patient_pattern=patient_pattern)
                facts = {"in_channels": task.in_channels, "channels": task.channels, "labels": task.labels}
            else:
                items = read_source(folder, modality=modality, patient_pattern=patient_pattern)
            facts |= {"root": folder, "roi_size": None if roi_size is None else int(roi_size), "contents": contents}
            findings = find_problems(items, workers=workers, record=record, **facts)
        except (ValueError, OSError) as error:  # one data set's trouble does not hide another's
            print(f"{folder} ({layout}): {error}")
            fatal += 1
            continue
        count = sum(finding.fatal for finding in findings)
        print(f"{folder} ({layout}): {len(items)} items, {count} fatal, {len(findings) - count} warnings")
        for finding in findings:
            print(f"  {finding}")
        fatal += count
    sys.exit(bool(fatal))


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
