"""What a newcomer meets first: the README's two commands, the files it names, the rules that keep the house small."""

import configparser
import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import swinfuse_components

MAX_MODULE_LINES = 330
#: of a room at most, 2 % above what it held when this was written
MAX_LINES = {"swinfuse_components": 12_600, "bundles": 3_300, "tests": 13_200}
MAX_FILE_BYTES = 2 * 1024 * 1024


def tracked_files(repository: Path) -> list[Path]:
    if not (repository / ".git").exists():
        pytest.skip("no git work tree: the list of tracked files is unknown")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True).stdout
    return [repository / name for name in names.decode().split("\0") if name]


def test_readme_opens_with_commands_that_exist(repository: Path) -> None:
    first_section = (repository / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    commands = re.findall(r"^    (scripts/\S+)", first_section, re.MULTILINE)
    assert commands == ["scripts/quickstart.sh", "scripts/test.sh"]
    assert all(os.access(repository / command, os.X_OK) for command in commands)


def test_files_that_the_readme_names_exist(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\|[^|]+\| (`swinfuse_components/.+?) \|$", text, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        places = (repository / Path(first).parent, repository / "swinfuse_components")
        assert all(any((place / name).is_file() for place in places) for name in others), others
        assert (repository / first).is_file(), first


def test_python_of_the_pages_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    (readme,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    small = readme.replace("roi_size=96, feature_size=48", "roi_size=64, feature_size=12, window_size=4")
    exec(small.replace("bundles/pretrain/models/model.pt", "pretrained.pt"), names)


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    pages = [page for page in tracked_files(repository) if page.suffix == ".md"]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http", "mailto:")) and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(repository)} -> {target}")
    assert not broken


def test_citation_names_paper_and_software(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    assert citation["version"] == setup["metadata"]["version"] == swinfuse_components.__version__
    assert citation["license"] == setup["metadata"]["license"]
    assert citation["preferred-citation"]["identifiers"][0]["value"] == "arXiv:2405.12781"


def test_pinned_set_lies_inside_the_declared_ranges(repository: Path) -> None:
    pinned = {}
    for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned[requirement.name.lower().replace("_", "-")] = str(requirement.specifier).removeprefix("==")
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    declared = setup["options"]["install_requires"].split("\n")
    for extra in setup["options.extras_require"].values():
        declared += extra.split("\n")
    missing, outside = [], []
    for requirement in (Requirement(line) for line in declared if line and not line.startswith("#")):
        name = requirement.name.lower().replace("_", "-")
        if name in {"nnunetv2", "huggingface-hub"}:  # not part of the tested environment
            continue
        if name not in pinned:
            missing.append(name)
        elif not requirement.specifier.contains(pinned[name]):
            outside.append(f"{name}=={pinned[name]} against {requirement.specifier}")
    assert not missing
    assert not outside


def test_no_module_outgrows_one_idea(repository: Path) -> None:
    modules = (repository / "swinfuse_components").rglob("*.py")
    lengths = {str(path.relative_to(repository)): path.read_text(encoding="utf-8").count("\n") for path in modules}
    assert lengths
    assert not {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES}


def lines(files: Iterable[Path]) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in files)


def test_the_house_does_not_grow_unseen(repository: Path) -> None:
    """A change that needs more room raises the bound, and its message says what could not go instead."""
    found = {
        "swinfuse_components": lines((repository / "swinfuse_components").rglob("*.py")),
        "bundles": lines(path for path in (repository / "bundles").glob("*/configs/**/*") if path.is_file()),
        "tests": lines((repository / "tests").rglob("*.py")),
    }
    assert not {name: count for name, count in found.items() if count > MAX_LINES[name]}


def test_the_readme_says_how_much_of_the_library_is_the_method(repository: Path) -> None:
    said = re.search(
        r"is about ([\d,]+) of the library's lines", (repository / "README.md").read_text(encoding="utf-8")
    )
    assert said
    rooms = (repository / "swinfuse_components" / room for room in ("networks", "losses", "transforms"))
    assert int(said[1].replace(",", "")) == pytest.approx(
        lines(path for r in rooms for path in r.glob("*.py")), rel=0.1
    )


def test_no_weights_or_volumes_among_the_tracked_files(repository: Path) -> None:
    files = [path for path in tracked_files(repository) if path.exists()]
    assert not [path for path in files if path.stat().st_size > MAX_FILE_BYTES]
    assert not [path for path in files if path.name.endswith((".pt", ".pth", ".ckpt", ".onnx", ".nii", ".nii.gz"))]


def test_rooms_of_the_library_do_not_import_one_another(repository: Path) -> None:
    library = repository / "swinfuse_components"
    rooms = {"networks", "losses", "transforms", "data"}
    crossings = []
    for room in rooms:
        for module in (library / room).rglob("*.py"):
            text = module.read_text(encoding="utf-8")
            found = re.findall(r"^\s*from \.\.+(\w+)", text, re.M)
            crossings += [(room, other) for other in found if other in rooms - {room}]
    assert set(crossings) <= {("transforms", "data")}, "intensities are scaled by modality; all else stands alone"


def test_library_imports_itself_relatively(repository: Path) -> None:
    """Packages carry copies of modules under another name."""
    modules = list((repository / "swinfuse_components").rglob("*.py"))
    absolute = [m for m in modules if re.search(r"^\s*(from|import) swinfuse_components", m.read_text("utf-8"), re.M)]
    assert modules and not absolute


def test_bundles_hold_configuration_only(repository: Path) -> None:
    code = [path for path in tracked_files(repository) if "bundles" in path.parts[len(repository.parts) :][:1]]
    assert not [path for path in code if path.suffix == ".py"]


def test_json_and_yaml_files_parse(repository: Path) -> None:
    for path in tracked_files(repository):
        if path.suffix == ".json" and path.exists():
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in {".yaml", ".yml"} and path.exists():
            yaml.safe_load(path.read_text(encoding="utf-8"))
