"""What a running configuration needs to know of itself: the folder it lies in and its own final content."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow

from .files import atomic_write
from .value_types import wrong_values

T = TypeVar("T")

_CONFIGURATION_FILES = (".json", ".yaml", ".yml")
_NOT_PYTHON = {"true": "True", "false": "False", "null": "$None", "yes": "True", "no": "False"}


def bundle_root(default: str | Path = ".") -> str:
    """Absolute path of the bundle whose configuration is being evaluated, whatever the working directory.

    It is the folder above the ``configs`` folder that holds the first configuration file (the rule by which
    ``monai.bundle run`` finds ``metadata.json`` and ``logging.conf`` too). Meant for the line
    ``"bundle_root": "$swinfuse_components.engines.bundle_root()"`` of a configuration; ``--bundle_root`` replaces it.

    Args:
        default: taken when no MONAI bundle workflow is at work, for instance when an application reads the file with
            a bare ``ConfigParser``; such applications set ``bundle_root`` themselves.
    """
    for workflow in _callers(ConfigWorkflow):
        folder = Path(workflow.config_root_path).resolve()
        return str(folder.parent if folder.name == "configs" else folder)
    return str(Path(default).resolve())


def save_configuration(directory: str | Path, filename: str = "configuration.json") -> str:
    """Write the configuration being evaluated, overlays and command-line overrides merged in, as JSON.

    The file runs by itself (``python -m monai.bundle run --config_file <file> --bundle_root <bundle>``) and stays
    beside the checkpoints as the record of what made them. A file of an earlier run of the folder is kept under a
    numbered name when its content differs.

    Args:
        directory: folder to write into, made if missing.
        filename: name of the file.

    Returns:
        path of the file.

    Raises:
        RuntimeError: called from outside a configuration.
    """
    parser = next(_callers(ConfigParser), None)
    if parser is None:
        raise RuntimeError("save_configuration() can only be called by a configuration, in a '$' expression")
    content: Any = parser.get()
    text = json.dumps({key: value for key, value in content.items() if key != "_meta_"}, indent=4, default=str) + "\n"
    path = Path(directory) / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        number = sum(1 for _ in path.parent.glob(f"{path.stem}.*{path.suffix}")) + 1
        path.rename(path.with_suffix(f".{number}{path.suffix}"))
    with atomic_write(path) as file:
        file.write(text)
    return str(path)


def save_patients(directory: str | Path, items: Sequence[Mapping[str, Any]], group_key: str = "patient") -> str:
    """Write who is trained on, ``patients.json`` with ``{"training": [...]}``: later tests have to leave them out.

    Returns:
        path of the file.
    """
    path = Path(directory) / "patients.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    patients = sorted({str(item[group_key]) for item in items})
    with atomic_write(path) as file:
        file.write(json.dumps({"training": patients}, indent=1) + "\n")
    return str(path)


def check_configuration() -> None:
    """Look for slips in the configuration being evaluated that MONAI takes without a word.

    - A value such as ``true``: on a command line it is a string, and every string that is not empty counts as true.
    - A key that no configuration file of the bundle has and nothing refers to: a misspelt override changes nothing.
    - A value of another kind than the bundle's own JSON files have for its key. Their key ``examples`` adds values for
      keys that are null or computed by default, or that take more than one kind.

    Raises:
        ValueError: names every such key, with a hint; all at once.
        RuntimeError: called from outside a configuration.
    """
    parser = next(_callers(ConfigParser), None)
    if parser is None:
        raise RuntimeError("check_configuration() can only be called by a configuration, in a '$' expression")
    content: Any = parser.get()
    slips = {
        key: f"{key} is the text '{value}': write {_NOT_PYTHON[value.lower()]}"
        for key, value in _leaves(content)
        if isinstance(value, str) and value.lower() in _NOT_PYTHON and not key.startswith("_meta_")
    }
    findings = list(slips.values())
    known = set(re.findall(r"@(\w+)", json.dumps(content, default=str))) | {"_meta_"}
    for workflow in _callers(ConfigWorkflow):
        files = [path for path in sorted(workflow.config_root_path.iterdir()) if path.suffix in _CONFIGURATION_FILES]
        contents = {path: ConfigParser.load_config_file(path) for path in files}
        names = {str(name) for each in contents.values() for name in each}
        known |= {re.split("::|#", name.lstrip("+"))[0] for name in names}
        defaults = [each for path, each in contents.items() if path.suffix == ".json" and path.stem != "metadata"]
        examples = {key: values for each in defaults for key, values in each.get("examples", {}).items()}
        wrong = wrong_values(content, defaults, examples)
        findings += [message for key, message in wrong if not any(slip.startswith(key) for slip in slips)]
        for key in sorted(set(content) - known):
            close = difflib.get_close_matches(key, known, 1)
            findings.append(f"{key} is a key that nothing uses" + (f": did you mean {close[0]}?" if close else ""))
        break
    if findings:
        raise ValueError("the configuration has slips: " + "; ".join(findings))


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values that are neither dictionary nor list, with their ids."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from _leaves(value, f"{prefix}::{key}" if prefix else str(key))
    else:
        yield prefix, content


def _callers(kind: type[T]) -> Iterator[T]:
    """Objects of ``kind`` among the callers: MONAI hands a ``$`` expression no way to ask for its own parser."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            yield caller
        frame = frame.f_back
