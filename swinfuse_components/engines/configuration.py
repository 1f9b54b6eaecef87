"""The configuration being evaluated: where its bundle lies, what it holds, and errors in it that MONAI overlooks."""

import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow

T = TypeVar("T")

_POSITIVE = (1, float("inf"), "1 or more")
_NOT_NEGATIVE = (0, float("inf"), "0 or more")
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        "max_epochs rounds epoch_length batch_size crops views accumulation_steps sw_batch_size".split(), _POSITIVE
    ),
    **dict.fromkeys("feature_size window_size num_folds log_interval limit".split(), _POSITIVE),
    "roi_size": (1, 1024, "1 to 1024 voxels on an axis"),
    **dict.fromkeys(
        "val_interval checkpoint_interval early_stop_patience num_workers cache_num adapt_rounds".split(), _NOT_NEGATIVE
    ),
    **dict.fromkeys("fold seed warmup_epochs warmup_iterations freeze_epochs weight_decay".split(), _NOT_NEGATIVE),
    "learning_rate": (1e-12, 10, "a rate such as 0.0001"),
    "cache_rate": (0, 1, "a share of the data set, from 0 to 1"),
    "spacing": (1e-3, 1e3, "millimetres, or -1 to keep the spacing of the files"),
    **dict.fromkeys(("flip_axes", "tta_axes"), (0, 2, "axes 0, 1 and 2")),
    "overlap": (0, 0.99, "a share of the window, from 0 to less than 1"),
    "validation_fraction": (0, 0.99, "a share from 0 to less than 1"),
}
"""Settings and the numbers that make sense for them, by name: lowest, highest, in words."""

CHOICES = {"test": ("wilcoxon", "permutation")}
"""Settings that are needed late, and the words that they may be."""

_PATHS = ("dataset_dir", "run_dir", "output_dir", "model_dir", "checkpoint", "checkpoint_file", "model_path")
_PER_AXIS = ("roi_size", "spacing", "window_size")  # one number for all axes, or one for each
_SECTIONS = ("train", "validate")
_GIVEN_BY_MONAI = {"run_name"}  # by the federated client, for experiment tracking
_NOT_PYTHON = {"true": "True", "false": "False", "null": "$None", "yes": "True", "no": "False"}


def bundle_root() -> str:
    """Absolute path of the bundle whose configuration is being evaluated, whatever the working directory.

    It is the folder above the ``configs`` folder that holds the first configuration file (the rule by which
    ``monai.bundle run`` finds ``metadata.json`` and ``logging.conf`` too); ``--bundle_root`` replaces it. Where no
    bundle workflow of MONAI is at work, for instance when an application reads the file with a bare ``ConfigParser``,
    it is the package that carries this copy of the library, or the working directory.
    """
    for workflow in callers(ConfigWorkflow):
        folder = Path(workflow.config_root_path).resolve()
        return str(folder.parent if folder.name == "configs" else folder)
    package = Path(__file__).resolve().parents[2]
    return str(package if (package / "configs" / "metadata.json").is_file() else Path.cwd())


def running_configuration() -> dict[str, Any] | None:
    """The configuration being evaluated, overlays and overrides merged in; None from outside of one.

    As JSON it runs by itself: ``python -m monai.bundle run --config_file <file> --bundle_root <bundle>``.
    """
    parser = next(callers(ConfigParser), None)
    return None if parser is None else {key: value for key, value in parser.get().items() if key != "_meta_"}


def check_configuration() -> None:
    """Look for errors in the configuration being evaluated that MONAI takes without a word.

    - A value such as ``true``: on a command line it is a string, and every string that is not empty counts as true.
    - A key that no configuration file of the bundle has and nothing refers to: a misspelt override changes nothing.
    - A ``#`` in a path that is not only read: MONAI writes ``::`` in its place.
    - A value of another kind than the files give (text for a number), or out of :data:`RANGES`.

    A ValueError names every such key, with a hint, all at once.
    """
    content = running_configuration()
    if content is None:
        raise RuntimeError("check_configuration() can only be called by a configuration, in a '$' expression")
    findings = [
        f"{key} is the text '{value}': write {_NOT_PYTHON[value.lower()]}"
        for key, value in _leaves(content)
        if _is_not_python(value)
    ]
    typed = dict(zip((argument.lstrip("-") for argument in sys.argv), sys.argv[1:]))
    for key in _PATHS:
        path = str(typed.get(key, content.get(key, ""))).replace("::", "#")
        if key in content and not (isinstance(content[key], str | os.PathLike) and path.strip()):
            findings.append(f"{key} is {content[key]!r}: expected a path")
        if "#" in path and not path.startswith(("$", "@", "%")):
            findings.append(f"{key} is '{path}': MONAI takes '#' for a separator, name a folder without it")
    workflow = next(callers(ConfigWorkflow), None)
    if workflow is not None:
        files = [path for path in workflow.config_root_path.iterdir() if path.suffix in (".json", ".yaml", ".yml")]
        contents = [ConfigParser.load_config_file(path) for path in sorted(files)]
        known = {name for each in contents for name in _names(each)}
        for reference in re.findall(r"@(\w+)(::\w+)?", json.dumps(content, default=str)):
            known |= {reference[0], "".join(reference)}
        for key in sorted(set(_names(content)) - known - _GIVEN_BY_MONAI):
            close = difflib.get_close_matches(key, known, 1)
            findings.append(f"{key} is a key that nothing uses" + (f": did you mean {close[0]}?" if close else ""))
        for key, value in content.items():
            defaults = [each[key] for each in contents if key in each]
            findings += [] if _is_not_python(value) else _wrong_value(key, value, defaults)
        for key, value in _leaves(content):
            name = re.sub(r"(::\d+)+$", "", key)
            low, high, words = RANGES.get(name.rpartition("::")[2], (value, value, ""))
            is_kept = name.endswith("spacing") and value == -1
            if isinstance(value, int | float) and not isinstance(value, bool) and not is_kept:
                findings += [] if low <= value <= high else [f"{name} is {value}: expected {words}"]
    if findings:
        raise ValueError("the configuration has errors: " + "; ".join(dict.fromkeys(findings)))


def _names(content: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the first level, and of the second in the sections of a training."""
    for key, value in content.items():
        first, *rest = str(key).lstrip("+").replace("#", "::").split("::")
        yield first
        if first in _SECTIONS:
            yield from (f"{first}::{name}" for name in rest[:1] or (value if isinstance(value, dict) else ()))


def _is_not_python(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _NOT_PYTHON


def _wrong_value(key: str, value: Any, defaults: Sequence[Any]) -> Iterator[str]:
    """What is wrong with a setting, judged by the values that the files give it; expressions are not judged.

    Nor are objects, which a program may put in place of a part (``workflow.inferer = ...``).
    """
    kind = _kind(value)
    if kind == "value" or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return
    literal = [each for each in defaults if not (isinstance(each, str) and each.startswith(("$", "@", "%")))]
    kinds = {_kind(each) for each in literal}
    open_ended = "nothing" in kinds or not kinds
    allowed = kinds | ({"whole number"} if "number" in kinds else set())
    # MONAI takes structures in place of names (norm_name) and of one another; a number for each axis for one number
    allowed |= {"list", "dictionary"} if kinds & {"text", "list", "dictionary"} else set()
    allowed |= {"list"} if key in _PER_AXIS else set()
    if not open_ended and kind not in allowed:
        yield f"{key} is {value!r}, a {kind}: expected a {' or '.join(sorted(kinds))} such as {literal[0]!r}"
    elif key in _PER_AXIS and kind == "list" and (len(value) != 3 or not all(map(_may_be_number, value))):
        yield f"{key} is {value!r}: expected one number for each of the three axes"
    elif key == "amp" and kind != "truth value":  # which the files give as an expression
        yield f"{key} is {value!r}, a {kind}: expected a truth value"
    elif value not in CHOICES.get(key, (value,)):
        yield f"{key} is {value!r}: expected {' or '.join(map(repr, CHOICES[key]))}"
    elif key == "output_postfix" and re.search(r"[/\\]", str(value)):
        yield f"{key} is {value!r}: expected a part of a file's name"


def _may_be_number(value: Any) -> bool:
    return isinstance(value, Real) or str(value).startswith(("$", "@", "%"))


def _kind(value: Any) -> str:
    names = {bool: "truth value", int: "whole number", float: "number", str: "text", dict: "dictionary"}
    names[type(None)] = "nothing"
    if isinstance(value, list | tuple):
        return "list"
    return names.get(type(value), "value")


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values that are neither dictionary nor list, with their ids."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from _leaves(value, f"{prefix}::{key}" if prefix else str(key))
    else:
        yield prefix, content


def federated() -> bool:
    """Whether MONAI's federated client is among the callers: weights come from a server, and epochs in rounds."""
    client = sys.modules.get("monai.fl.client")  # loaded by whoever uses it
    return client is not None and next(callers(client.ClientAlgo), None) is not None


def callers(kind: type[T]) -> Iterator[T]:
    """Objects of ``kind`` among the callers: MONAI hands a ``$`` expression no way to ask for its own parser."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, kind):
            yield caller
        frame = frame.f_back
