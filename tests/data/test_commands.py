"""The command lines over the library, and what a user of a bundle sees of a bad data list."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from swinfuse_components.data import load_fold


@pytest.fixture
def script(repository, monkeypatch):
    """Run one of the repository's scripts with arguments; returns its exit code."""

    def run(name: str, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(repository / "scripts" / name), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def test_validate_tells_good_from_bad(script, msd_folder, synthrad_folder, capsys):
    root = msd_folder(2)
    synthrad_folder(1)
    assert script("validate.py", root.parent) == 0
    assert "2 items, 0 fatal" in capsys.readouterr().out
    (root / "imagesTr" / "case_01.nii.gz").write_bytes(b"")
    (root.parent / "SynthRAD" / "Task1" / "pelvis" / "1PA000" / "mr.nii.gz").unlink()
    assert script("validate.py", root.parent) == 1
    printed = capsys.readouterr().out
    assert "[unreadable]" in printed and "[missing_file]" in printed and printed.count("1 fatal") == 2


def test_a_broken_task_does_not_hide_its_neighbours(script, msd_folder, synthrad_folder, capsys):
    (msd_folder(1) / "dataset.json").write_text("{", encoding="utf-8")
    root = synthrad_folder(1)
    assert script("validate.py", root.parent) == 1
    printed = capsys.readouterr().out
    assert "not valid JSON" in printed and "2 items, 0 fatal" in printed


def test_folds(script, msd_folder, tmp_path):
    root = msd_folder(5)
    assert script("folds.py", tmp_path / "folds", root, "--num_folds", 5, "--seed", 3) == 0
    assert len(load_fold(tmp_path / "folds" / "Task99_Made_folds.json", 4, "validation", root=root)) == 1


def test_a_bundle_shows_one_message_and_no_traceback(msd_folder, tmp_path):
    root = msd_folder(4)
    (root / "imagesTr" / "case_01.nii.gz").write_bytes(b"")
    (root / "labelsTr" / "case_02.nii.gz").unlink()
    before = sorted(root.rglob("*"))
    configuration = {
        "imports": ["$import swinfuse_components.data as data", "$import swinfuse_components.engines as engines"],
        "initialize": ["$engines.short_errors()"],
        "run": ["$data.check_datalist(data.msd_datalist(@dataset_dir))"],
        "dataset_dir": str(root),
    }
    file = tmp_path / "check.json"
    file.write_text(json.dumps(configuration), encoding="utf-8")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(file)]
    environment = {key: value for key, value in os.environ.items() if key != "SWINFUSE_TRACEBACK"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("error: ") :]
    assert "case_01.nii.gz: has 0 bytes" in message and "case_02.nii.gz: does not exist" in message
    assert sorted(root.rglob("*")) == before and sorted(Path(tmp_path).iterdir()) == sorted([file, root])
