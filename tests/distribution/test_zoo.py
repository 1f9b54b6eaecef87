"""What packages meet elsewhere: the Model Zoo's Python, code format and unit tests; what a MONAI Label server has."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ..bundles.test_metadata import pinned_versions
from .conftest import BUNDLES


def versions_of(folder: Path) -> dict[str, str]:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    own = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    return {name: metadata[key] for name, key in own.items()} | metadata["required_packages_version"]


@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_a_label_server_has_what_a_package_imports(
    package: Callable[[str], Path], repository: Path, bundle: str
) -> None:
    lines = (repository / "scripts" / "label_server" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    installed = {Requirement(line).name.lower() for line in lines if not line.startswith("#")}
    # of itk the reader and its like suffice
    needed = {name.lower().replace("itk", "itk-io") for name in versions_of(package(bundle).parent / bundle)}
    assert needed <= installed


@pytest.mark.slow
def test_versions_exist_for_the_python_of_the_zoo(package: Callable[[str], Path], tmp_path: Path) -> None:
    pins = {f"{n}=={v}" for bundle in BUNDLES for n, v in versions_of(package(bundle).parent / bundle).items()}
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), *sorted(pins)]
    done = subprocess.run(
        [*command, "--python-version", "3.10", "--only-binary", ":all:"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["black", "isort", "flake8"])
def test_code_has_the_format_of_the_zoo(package: Callable[[str], Path], tool: str, tmp_path: Path) -> None:
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; the zoo checks code with it")
    options = {  # of the zoo's runtests.sh, pyproject.toml and setup.cfg
        "black": ["--check", "--skip-magic-trailing-comma", "--line-length", "120", "--target-version", "py39"],
        "isort": ["--check", "--profile", "black", "--line-length", "120"],
        "flake8": ["--isolated", "--max-line-length", "120", "--select", "B,C,E,F,N,P,T4,W,B9", "--ignore"]
        + ["E203,E501,E741,W503,W504,C408,N812,B023,B905,B028,B907,C419", "--per-file-ignores", "__init__.py:F401"],
    }[tool]
    for bundle in BUNDLES:  # somewhere that no configuration of ours reaches
        shutil.copytree(package(bundle).parent / bundle / "scripts", tmp_path / bundle / "scripts")
    shutil.copytree(Path(__file__).parents[2] / "scripts" / "zoo_tests", tmp_path / "zoo_tests")
    done = subprocess.run([sys.executable, "-m", tool, *options, "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_configurations_have_the_format_of_the_zoo(package: Callable[[str], Path], bundle: str) -> None:
    for path in (package(bundle).parent / bundle).rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=4) + "\n", path.name


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_unit_test_for_the_zoo(package: Callable[[str], Path], repository: Path, bundle: str, tmp_path: Path) -> None:
    shutil.copytree(package(bundle).parent / bundle, tmp_path / "models" / bundle)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}  # as the zoo runs it, in its root
    test = repository / "scripts" / "zoo_tests" / f"test_{bundle}.py"
    done = subprocess.run([sys.executable, str(test)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_versions_are_those_held_for_the_python_of_the_zoo(
    package: Callable[[str], Path], repository: Path, bundle: str
) -> None:
    found, pinned = versions_of(package(bundle).parent / bundle), pinned_versions(repository)
    assert found == {name: pinned.get(name) for name in found}
