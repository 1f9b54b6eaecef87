"""Weights to give away: train them on data whose licence allows it, and build their packages.

    python scripts/release.py DATA OUTPUT [--only hippocampus] [--probe_ct TASK --probe_mr TASK]

DATA holds SynthRAD_like/ (registered CT and MRI of thighs) and MSD_like/Task04, 50, 51, 52, 53. OUTPUT gets the
training folders (`runs/`), and the packages with their zips and hashes (`packages/`). A training that was stopped goes
on, and what is finished is kept. One thread of a CPU takes about an hour for each. What the packages say of
themselves lies in `scripts/release/`, and in a run's `note.md` if there is one; figures come from the runs alone.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import yaml

from swinfuse_components.checkpoints import sha256
from swinfuse_components.distribution import build_package, check_package, write_model_card
from swinfuse_components.engines import short_errors
from swinfuse_components.engines.run_folder import checkpoints_of

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 25 * 1000 * 1000
RELEASES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "scripts/release/releases.yaml").read_text("utf-8"))


def command(bundle: str, action: str, files: Sequence[str], settings: dict[str, Any]) -> list[str]:
    """The words that MONAI's users type after `python`."""
    paths = [f"bundles/{bundle}/configs/{file}" for file in files]
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    return ["-m", "monai.bundle", "run", action, "--config_file", str(paths), *options]


def run(words: list[str]) -> None:
    """Run a command of MONAI in the repository; ends this script as that ends, where it fails or is stopped."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        sys.exit(done.returncode)


def release(name: str, data: Path, output: Path, probe: Sequence[str], overrides: dict[str, Any]) -> None:
    """Train, evaluate or probe, build and check one package."""
    recipe, folder, texts = RELEASES[name], output / "runs" / name, ROOT / "scripts/release" / name
    bundle, package = recipe["bundle"], recipe["package"]
    files = ["train.json", *recipe["overlays"], "bfloat16.yaml"]
    settings = {key: str(value).replace("DATA", str(data)) for key, value in recipe["settings"].items()}
    if not (folder / "model_final.pt").is_file():
        resume = {"resume": True} if folder.is_dir() and checkpoints_of(folder) else {}
        places = {"run_dir": folder, **overrides, **resume}
        run(command(bundle, "training", files, settings | places))

    metrics = probing = None
    if bundle == "finetune_msd":
        metrics = folder / "evaluation" / "evaluation.json"
        if not metrics.is_file():
            run(command(bundle, "evaluating", [*files, "evaluate.json"], settings | {"run_dir": folder}))
    elif probe:
        probing = folder / "probing" / "probing.md"
        encoders = {"random weights": recipe["random"], "these weights": str(folder / "model.pt")}
        places = {"dataset_dir": probe[0], "datasets": probe[1:], "output_dir": probing.parent}
        options = {"encoders": encoders, **recipe["probe"], **places}
        if not probing.is_file():
            run(command("ood_eval", "probing", ["probing.json"], options))

    source, packages = ROOT / "bundles" / bundle, output / "packages"
    build_package(
        source,
        packages,
        name=package,
        weights=folder / "model.pt",
        overlays=[source / "configs" / file for file in recipe["overlays"]],
        metadata=recipe["metadata"],
        half=recipe["half"],
        metrics=metrics,
    )
    (packages / package / "docs/data_license.txt").write_bytes((texts / "data_license.txt").read_bytes())
    pages = [texts / "card.md", *folder.glob("note.md")]
    write_model_card(packages / package, run_dir=folder, pages=pages, metrics=metrics, probing=probing)
    if problems := check_package(packages / package):
        sys.exit("\n".join(problems))


def main(data: str, output: str, only: str = "", probe_ct: str = "", probe_mr: str = "", **overrides: Any) -> None:
    """Build the packages of scripts/release/releases.yaml, or `only` one; other options are the training's settings."""
    source, target = Path(data).resolve(), Path(output).resolve()
    for name in [only] if only else RELEASES:
        release(name, source, target, [probe_ct, probe_mr] if probe_ct else [], overrides)
    archives = sorted((target / "packages").glob("*.zip"))
    lines = [f"{sha256(path)}  {path.name}\n" for path in archives]
    (target / "packages" / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    for path in archives:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if large := [path.name for path in archives if path.stat().st_size > MAX_BYTES]:
        sys.exit(f"{', '.join(large)}: over 25 MB")


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
