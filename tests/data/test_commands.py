"""The command lines over the library."""

import json
import runpy
import shutil
import sys

import pytest

from swinfuse_components.data import load_fold, load_folds
from swinfuse_components.engines import explanation


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
    items = load_folds(tmp_path / "folds" / "Task99_Made_folds.json", root=root)
    assert len(load_fold(items, 4, "validation")) == 1


RECORD = ("task", "model", "fold", "cases", "training_patients", "mean")
BAD_FILES: dict[str, tuple[str, str, str]] = {
    "a record that is cut": ("table.py {}", '{"task": ', "not valid JSON"),
    "a record without scores": ("table.py {}", json.dumps(dict.fromkeys(RECORD, "x")), "has no mean Dice"),
    "no record": ("table.py", "", "no evaluation.json was named"),
    "no regular expression": ("folds.py out . --patient_pattern (", "", "is no regular expression"),
    "an overlay of no YAML": ("package.py build bundles/finetune_msd dist --overlays {}", "a: [", "not valid YAML"),
    "a bundle in the way": ("package.py build bundles/finetune_msd bundles", "", "no package that was built here"),
    "another record": ("package.py hub . --metrics {}", "{}", "is no record of an evaluation"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_scripts_say_in_one_sentence_what_they_cannot_read(
    name: str, script, repository, msd_folder, tmp_path, monkeypatch
) -> None:
    words, content, expected = BAD_FILES[name]
    path = tmp_path / ("overlay.yaml" if "overlay" in words else "evaluation.json")
    path.write_text(content, encoding="utf-8")
    monkeypatch.chdir(msd_folder(3) if "folds" in words else tmp_path)
    shutil.copytree(repository / "bundles" / "finetune_msd", tmp_path / "bundles" / "finetune_msd")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").touch()
    with pytest.raises(Exception) as error:
        script(*words.format(path).split())
    assert expected in (explanation(error.value) or "")
