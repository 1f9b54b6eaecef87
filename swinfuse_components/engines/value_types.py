"""Whether the values of a configuration are of the kind that its own files show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a dictionary",
}
_MARKS = ("$", "@", "%")  # expressions, references and macros: what they give is known later


def wrong_values(
    content: Mapping[str, Any], defaults: Sequence[Mapping[str, Any]], examples: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[str, str]]:
    """Keys of a configuration whose values are of another kind than those the bundle's files have for them.

    A number may stand for a whole number only if it is one, a list of numbers keeps its length, and the settings inside
    of a component are compared as long as it stays the same component.

    Args:
        content: the configuration, overlays and overrides merged in.
        defaults: contents of the bundle's own files. Where they differ in kind, each is right.
        examples: by key, further values that are right: for keys that are null or computed by default.

    Yields:
        key and a message with what was found and what was expected.
    """
    for key, value in content.items():
        known = [each[key] for each in defaults if key in each]
        yield from _compare(key, value, [*known, *examples.get(key, ())], defaults)


def _compare(
    key: str, value: Any, known: Sequence[Any], defaults: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    if _is_marked(value) or (value is None and None in known):
        return
    known = [each for one in known for each in _literal(one, defaults)]
    if isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in known):
        same = [each for each in known if "_target_" in each and each["_target_"] == value.get("_target_")]
        for name, inner in value.items():
            yield from _compare(f"{key}::{name}", inner, [each[name] for each in same if name in each], defaults)
    elif known and not any(_fits(value, each) for each in known):
        expected = " or ".join(dict.fromkeys(f"{_kind(each)} such as {each!r}" for each in known))
        yield key, f"{key} is {_kind(value)}, {value!r}: expected {expected}{_hint(value)}"


def _literal(value: Any, defaults: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What a default says of its kind: itself, or what it refers to; nothing if it is null or computed."""
    if isinstance(value, str) and value.startswith("@"):
        found = [each[value[1:]] for each in defaults if value[1:] in each]
        return [each for each in found if each is not None and not _is_marked(each)]
    return [] if value is None or _is_marked(value) else [value]


def _fits(value: Any, example: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(example, list):
        if not all(isinstance(each, int | float) for each in example):
            return True
        same_length = len(example) < 2 or len(value) == len(example)
        return same_length and all(_is_marked(each) or _fits(each, max(example)) for each in value if example)
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(example, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(example, float) else type(example))


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(each, int | float) for each in value):
        return f"a list of {len(value)} numbers"
    return "nothing" if value is None else _NAMES.get(type(value), type(value).__name__)


def _hint(value: Any) -> str:
    """YAML takes 1e-3, without a point, for text."""
    try:
        return f"; write {float(value)!r}" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _is_marked(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_MARKS)
