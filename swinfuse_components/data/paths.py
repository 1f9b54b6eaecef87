"""Paths and JSON files of data sets: suffixes of volumes, and paths that never leave their folder."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".nhdr", ".mhd")


class UnsafePathError(ValueError):
    """A data list names a path outside the folder it belongs to."""


def existing_path(path: str | os.PathLike, what: str = "data set", kind: str = " folder") -> Path:
    """``path`` made absolute, MONAI's ``::`` in place of a typed ``#`` undone; FileNotFoundError if there is none."""
    text = os.path.abspath(os.path.expanduser(os.fspath(path)))
    typed = text.replace("::", "#")  # MONAI's configuration parser writes every "#" as "::"
    found = next((name for name in (text, typed) if os.path.exists(name)), None)
    if found is None:
        hint = "" if os.path.isabs(os.fspath(path)) else f" (relative to '{os.getcwd()}')"
        cut = next((argument for argument in sys.argv if argument.startswith(f"{os.fspath(path)}#")), None)
        if cut:  # the command line takes what follows for a comment
            hint = f": a relative path is cut at '#', write './{cut}'"
        raise FileNotFoundError(f"{what}{kind} '{typed}' does not exist{hint}")
    return Path(found)


def existing_dir(path: str | os.PathLike, what: str = "data set") -> Path:
    """``path`` as an absolute path of a folder; see :func:`existing_path`."""
    folder = existing_path(path, what)
    if not folder.is_dir():
        raise NotADirectoryError(f"{what} folder expected, but '{folder}' is a file")
    return folder


def resolve_inside(root: str | os.PathLike, entry: object) -> str:
    """Absolute path of a data list's ``entry``, which is taken relative to ``root`` and has to stay below it.

    The check is on the written path: ``..`` and absolute paths elsewhere are refused. Symbolic links are followed,
    since only the owner of the folder can have put them there; a data list, which may come from a stranger, cannot.
    Backslashes are read as Windows writes them, unless a file has one in its name; accents in either form of Unicode.
    UnsafePathError if the entry leaves ``root``, is empty, is not text, or holds a NUL character.
    """
    if not isinstance(entry, (str, os.PathLike)):
        raise UnsafePathError(
            f"a path was expected in the data list of '{root}', found {type(entry).__name__}: {entry!r}"
        )
    text = os.fspath(entry)
    if not text or "\0" in text:
        raise UnsafePathError(f"empty or malformed path {text!r} in the data list of '{root}'")
    base = os.path.abspath(os.fspath(root))
    slashed = text.replace("\\", "/")
    spellings = [normalize(form, name) for name in (text, slashed) for form in ("NFC", "NFD")]  # of accents
    text = next((name for name in (text, *spellings) if os.path.exists(os.path.join(base, name))), slashed)
    path = os.path.normpath(os.path.join(base, text))
    if path == base or os.path.commonpath([base, path]) != base:
        raise UnsafePathError(f"path '{os.fspath(entry)}' leaves its data set's folder '{base}': refused")
    return path


def is_volume(path: Path) -> bool:
    """Whether a file's name is that of a volume; hidden files (``._case.nii.gz`` of macOS) are not."""
    return path.name.lower().endswith(VOLUME_SUFFIXES) and not path.name.startswith(".")


def find_volume(folder: Path, stem: str) -> Path | None:
    """The file ``stem`` + one of :data:`VOLUME_SUFFIXES` in ``folder``, or None. Compressed NIfTI goes first."""
    wanted = [(stem + suffix).lower() for suffix in VOLUME_SUFFIXES]
    found = {name.lower(): folder / name for name in os.listdir(folder)} if folder.is_dir() else {}
    return next((found[name] for name in wanted if name in found and found[name].is_file()), None)


def volume_stem(path: str | os.PathLike) -> str:
    """File name without its volume suffix: ``imagesTr/liver_3.nii.gz`` gives ``liver_3``."""
    name = os.path.basename(os.fspath(path))
    suffix = next((suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: -len(suffix)] if suffix else name


def unique_names(paths: Iterable[str]) -> dict[str, str]:
    """A name for each file: its file name without suffix, or a DICOM folder's whole name.

    Where two are equal, that of the folder goes before, or the suffix behind.
    """
    candidates = (
        volume_stem,
        lambda path: f"{os.path.basename(os.path.dirname(path))}_{volume_stem(path)}",
        lambda path: os.path.basename(path).replace(".", "_"),
        lambda path: re.sub(r"[^\w-]+", "_", path).strip("_"),
    )
    names: dict[str, str] = {}
    left = set(paths)
    for name in candidates:
        counts = Counter(name(path) for path in sorted(left))
        taken = set(names.values())
        names |= {path: name(path) for path in left if counts[name(path)] == 1 and name(path) not in taken}
        left -= set(names)
    return names


def subfolders(folder: Path) -> list[Path]:
    """Sorted folders in ``folder``, without hidden ones and SynthRAD's ``overview`` (pictures)."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "overview" and p.name[0] not in "._")


def read_json(path: Path, what: str = "") -> dict:
    """Content of a JSON file that holds an object; a byte order mark is passed over."""
    what = what and what + " "
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what}'{path}': expected a JSON object, found {type(content).__name__}")
    return content
