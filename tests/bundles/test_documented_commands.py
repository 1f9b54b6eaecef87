"""Commands in the docs: each names a bundle's files, and keys and values that the bundle takes."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow

REPOSITORY = Path(__file__).parents[2]
CHECK = "$engines.check_configuration()"
START = "$engines.start_run("  # which makes the check, and what else is done before anything is read


def _commands() -> Iterator[tuple[Path, list[str]]]:
    """Every `monai.bundle run` of every page, as words; lines that end in a backslash go on in the next."""
    pages = [path for path in REPOSITORY.rglob("*.md") if not {".venv", "node_modules"} & set(path.parts)]
    for page in sorted(pages):
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for found in re.finditer(r"^\s*(?:[A-Z_]+=\S+ )*python -m monai\.bundle run (.+)$", text, re.MULTILINE):
            yield page, shlex.split(found[1], comments=True)


COMMANDS = list(_commands())


def _where(page: Path, files: list[str]) -> list[str]:
    """The files, which a page names from the root of the repository or from that of a bundle."""
    for root in (REPOSITORY, page.parents[1], *sorted((REPOSITORY / "bundles").iterdir())):
        if all((root / name).is_file() for name in files):
            return [str(root / name) for name in files]
    raise AssertionError(f"{page} names {files}, which are not together in the repository or in a bundle")


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.relative_to(REPOSITORY)}-{n}" for n, (page, _) in enumerate(COMMANDS)]
)
def test_command_passes_the_check_of_its_bundle(page: Path, words: list[str]) -> None:
    run_id = "run" if words[0].startswith("--") else words.pop(0)
    options = {key.removeprefix("--"): DefaultParseValue(value) for key, value in zip(words[::2], words[1::2])}
    files = options.pop("config_file")
    files = _where(page, files if isinstance(files, list) else [files])
    settings = ConfigParser.load_config_files(files)
    assert run_id in settings
    assert settings["initialize"][0].startswith(START)
    ConfigWorkflow(files, **{**options, "initialize": [CHECK]}).initialize()


def test_the_pages_have_commands() -> None:
    assert len({page for page, _ in COMMANDS}) > 5


def _expressions(content: Any) -> Iterator[str]:
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from _expressions(each)
    elif isinstance(content, str) and content.startswith("$") and not content.startswith("$import"):
        yield re.sub(r"@(\w|::|#)+", "x", content[1:])


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_expressions_are_python_of_every_version(version: str) -> None:
    """Python 3.12 takes f-strings that earlier versions refuse."""
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"no Python {version} here")
    paths = [p for p in (REPOSITORY / "bundles").rglob("*") if p.suffix in (".json", ".yaml") and "configs" in p.parts]
    expressions = sorted({each for path in paths for each in _expressions(ConfigParser.load_config_file(path))})
    assert len(expressions) > 100
    code = "import json, sys; [compile(each, each, 'eval') for each in json.load(sys.stdin)]"
    given = json.dumps(expressions)
    run = subprocess.run([python, "-c", code], input=given, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
