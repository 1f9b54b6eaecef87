"""Paths that come out of data lists: joined to their root, and never allowed to leave it."""

from __future__ import annotations

import os
from pathlib import Path

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


class UnsafePathError(ValueError):
    """A data list names a path outside the folder it belongs to."""


def existing_dir(path: str | os.PathLike, what: str = "data set") -> Path:
    """Return ``path`` as an absolute :class:`~pathlib.Path`.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        NotADirectoryError: if there is a file.
    """
    folder = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    if not folder.exists():
        raise FileNotFoundError(f"{what} folder '{folder}' does not exist")
    if not folder.is_dir():
        raise NotADirectoryError(f"{what} folder expected, but '{folder}' is a file")
    return folder


def resolve_inside(root: str | os.PathLike, entry: object) -> str:
    """Absolute path of a data list's ``entry``, which is taken relative to ``root`` and has to stay below it.

    The check is on the written path: ``..`` and absolute paths elsewhere are refused. Symbolic links are followed,
    since only the owner of the folder can have put them there; a data list, which may come from a stranger, cannot.

    Raises:
        UnsafePathError: if the entry leaves ``root``, is empty, is not text, or holds a NUL character.
    """
    if not isinstance(entry, (str, os.PathLike)):
        raise UnsafePathError(
            f"a path was expected in the data list of '{root}', found {type(entry).__name__}: {entry!r}"
        )
    text = os.fspath(entry)
    if not text or "\0" in text:
        raise UnsafePathError(f"empty or malformed path {text!r} in the data list of '{root}'")
    base = os.path.abspath(os.fspath(root))
    path = os.path.normpath(os.path.join(base, text))
    if path == base or os.path.commonpath([base, path]) != base:
        raise UnsafePathError(f"path '{text}' leaves its data set's folder '{base}': refused")
    return path


def find_volume(folder: Path, stem: str) -> Path | None:
    """The file ``stem`` + one of :data:`VOLUME_SUFFIXES` in ``folder``, or None. Compressed NIfTI goes first."""
    for suffix in VOLUME_SUFFIXES:
        candidate = folder / (stem + suffix)
        if candidate.is_file():
            return candidate
    return None


def volume_stem(path: str | os.PathLike) -> str:
    """File name without its volume suffix: ``imagesTr/liver_3.nii.gz`` gives ``liver_3``."""
    name = os.path.basename(os.fspath(path))
    for suffix in VOLUME_SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return os.path.splitext(name)[0]
