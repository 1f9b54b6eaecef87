"""Packages of the bundles, as the Model Zoo and MONAI Label take them.

python scripts/package.py build bundles/finetune_msd --name spleen_ct_segmentation --weights runs/spleen/model.pt \\
    --metrics runs/spleen/evaluation/evaluation.json --output_dir dist
python scripts/package.py check dist/spleen_ct_segmentation
python scripts/package.py verify_network dist/finetune_msd
python scripts/package.py hub dist/finetune_msd --run_dir RUN --metrics RUN/evaluation/evaluation.json
"""

import sys
from pathlib import Path

import fire

from swinfuse_components.distribution import build_package, check_network, check_package, write_model_card
from swinfuse_components.engines import short_errors


def check(folder: str) -> None:
    """Print what keeps a package from the Model Zoo; exit code 1 when something does."""
    problems = check_package(folder)
    print("\n".join(problems) or f"{folder}: nothing missing")
    sys.exit(bool(problems))


def build(
    bundle: str,
    output_dir: str = "dist",
    name: str | None = None,
    weights: str | None = None,
    metrics: str | None = None,
    overlays: str = "",
    url_prefix: str = "",
    vendor: bool = True,
    half: bool = False,
) -> Path:
    """Build a package's folder and zip; `overlays` is a comma-separated list of files, `half` stores float16."""
    files = [name for name in overlays.split(",") if name] if isinstance(overlays, str) else list(overlays)
    return build_package(
        bundle,
        output_dir,
        name=name,
        weights=weights,
        metrics=metrics,
        overlays=files,
        url_prefix=url_prefix,
        vendor=vendor,
        half=half,
    )


if __name__ == "__main__":
    short_errors()
    fire.Fire({"build": build, "check": check, "verify_network": check_network, "hub": write_model_card})
