"""The checkpoint files of a run's folder: their names, which of them is sound, which can go."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from .. import checkpoints

_PATTERN = re.compile(r"checkpoint_iteration=(\d+)\.pt")


def checkpoint_path(run_dir: str | Path, iteration: int) -> Path:
    """Where the checkpoint after ``iteration`` lies."""
    return Path(run_dir) / f"checkpoint_iteration={iteration:08d}.pt"


def checkpoints_of(run_dir: str | Path) -> list[Path]:
    """Checkpoints of a run's folder, the oldest first."""
    found = [(match, path) for path in Path(run_dir).glob("*.pt") if (match := _PATTERN.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: int(pair[0][1]))]


def prune(run_dir: str | Path, keep: int) -> None:
    """Remove all checkpoints but the newest ``keep``, and what an interrupted write left behind."""
    for old in checkpoints_of(run_dir)[:-keep]:
        old.unlink(missing_ok=True)
    for orphan in Path(run_dir).glob(".checkpoint_iteration=*.tmp"):
        orphan.unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a training run without running any code it may hold.

    Raises:
        ValueError: it cannot be read, holds other objects than tensors and builtins, or is not
            the state of a run; the message names the file.
    """
    state = checkpoints.read_checkpoint(path)
    if not isinstance(state, dict) or not isinstance(state.get("trainer"), dict):
        found = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} is not the state of a training run: found {found}, expected 'trainer' among others")
    return state


def newest_sound(run_dir: str | Path, logger: logging.Logger) -> Path | None:
    """The newest checkpoint that can be read; damaged ones are named in the log and renamed to ``*.damaged``.

    Returns:
        its path, or None if the folder has no checkpoint at all.

    Raises:
        ValueError: there are checkpoints but all are damaged.
    """
    reasons = []
    for path in reversed(checkpoints_of(run_dir)):
        try:
            read_checkpoint(path)
            return path
        except ValueError as error:
            reasons.append(str(error))
            logger.error(f"{error}. Looking for the checkpoint before it")
            path.rename(path.with_name(path.name + ".damaged"))
    if reasons:
        raise ValueError(f"no sound checkpoint in {run_dir}: {'; '.join(reasons)}")
    return None
