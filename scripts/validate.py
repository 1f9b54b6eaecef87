"""Check data sets in the layouts of MSD, SynthRAD and BraTS21; exit code 1 when a finding is fatal.

python scripts/validate.py DATASET_DIR [--roi_size 96] [--contents False]
"""

import sys

import fire

from swinfuse_components.data.validation import validate_folder


def main(dataset_dir: str, roi_size: int | None = None, contents: bool = True) -> None:
    """Print all the findings of the data sets in `dataset_dir`."""
    sys.exit(not validate_folder(dataset_dir, roi_size=roi_size, contents=contents))


if __name__ == "__main__":
    fire.Fire(main)
