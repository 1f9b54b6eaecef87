"""Checkpoints in the folder of a training run: their names, reading them, and a folder that is in use."""

import re
from pathlib import Path
from typing import Any

from .. import checkpoints

_NAME = re.compile(r"checkpoint_iteration=(\d+)\.pt")


def checkpoints_of(run_dir: str | Path) -> list[Path]:
    """Checkpoints of a run's folder, the oldest first."""
    found = [(match, path) for path in Path(run_dir).glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: int(pair[0][1]))]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a training run without running any code it may hold.

    Raises:
        ValueError: it is damaged, holds other objects than tensors and builtins, or is not the state of a run; the
            message names the file.
        OSError, MemoryError: it could not be read just now, which says nothing about the file.
    """
    try:
        state = checkpoints.read_checkpoint(path)
    except ValueError as error:
        cause = error.__cause__
        if isinstance(cause, OSError | MemoryError):
            raise OSError(getattr(cause, "errno", None), f"cannot read {path}: {cause or 'out of memory'}") from error
        if "allocate memory" in str(cause):
            raise MemoryError(f"cannot read {path}: {cause}") from error
        raise
    if not isinstance(state, dict) or not isinstance(state.get("trainer"), dict):
        found = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} is not the state of a training run: found {found}, expected 'trainer' among others")
    return state


def refuse_used_folder(run_dir: str | Path, resume: bool) -> None:
    """FileExistsError for a run that is not resumed where another has left checkpoints."""
    existing = checkpoints_of(run_dir)
    if existing and not resume:
        raise FileExistsError(
            f"{run_dir} holds checkpoints of an earlier run (newest: {existing[-1].name}): continue it with "
            "'--resume True', or give this run a folder of its own with '--run_dir'"
        )


def refuse_lost_checkpoints(run_dir: str | Path, first: int) -> None:
    """ValueError where the first checkpoint, after ``first`` iterations, must have been and is gone.

    The table has more rows than come before it, or the model of a run's end is there.
    """
    table = Path(run_dir) / "losses.csv"
    rows = table.read_text(encoding="utf-8", errors="replace").count("\n") - 1 if table.is_file() else 0
    if rows > first or (rows == first and (Path(run_dir) / "model_final.pt").is_file()):
        raise ValueError(
            f"{run_dir} holds a run of {rows} iterations, but none of its checkpoints: put them back to resume it, or "
            "start a new run in another folder with '--run_dir'"
        )
