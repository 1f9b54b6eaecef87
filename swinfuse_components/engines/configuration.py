"""What a running configuration needs to know of itself: the folder it lies in and its own final content."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow

T = TypeVar("T")


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
    if path.exists() and path.read_text() != text:
        number = sum(1 for _ in path.parent.glob(f"{path.stem}.*{path.suffix}")) + 1
        path.rename(path.with_suffix(f".{number}{path.suffix}"))
    path.write_text(text)
    return str(path)


def _callers(kind: type[T]) -> Iterator[T]:
    """Objects of ``kind`` among the callers: MONAI hands a ``$`` expression no way to ask for its own parser."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            yield caller
        frame = frame.f_back
