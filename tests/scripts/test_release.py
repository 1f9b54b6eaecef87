"""Release packages: trained, evaluated, built and summed by one command, and not trained again by the next."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ..distribution.test_fresh_environment import hippocampi


@pytest.mark.slow
def test_one_command_trains_and_builds(repository: Path, swinfuse_data: Path, tmp_path: Path) -> None:
    hippocampi(swinfuse_data, tmp_path / "data" / "MSD_like" / "Task04_Hippocampus", 5)
    script = [sys.executable, repository / "scripts" / "release.py", tmp_path / "data", tmp_path / "out"]
    small = ["--only", "hippocampus", "--max_epochs", "1", "--feature_size", "12", "--val_interval", "1"]
    for _ in range(2):
        done = subprocess.run([*script, *small], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "Epoch" not in done.stdout + done.stderr, "the second call only builds"
    packages = tmp_path / "out" / "packages"
    (line,) = (packages / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    digest, name = line.split()
    assert hashlib.sha256((packages / name).read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(packages / name) as archive:
        root = name.partition("_v")[0]
        card = archive.read(f"{root}/README.md").decode()
        names = archive.namelist()
    assert {f"{root}/docs/losses.png", f"{root}/models/model.pt", f"{root}/models/model.json"} <= set(names)
    evaluation = json.loads((tmp_path / "out/runs/hippocampus/evaluation/evaluation.json").read_text(encoding="utf-8"))
    for region, value in evaluation["mean"]["dice"].items():
        assert f"| dice | {region} | {value:.4f} |" in card
    assert "2 steps, drawn in" in card and "4 patients trained on" in card
    assert str(tmp_path) not in card
