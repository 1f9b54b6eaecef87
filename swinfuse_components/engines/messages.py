"""What a run says to its user: one line for a mistake of his, the whole traceback for one of ours."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from ignite.engine import Engine
from monai.handlers import StatsHandler

from .distributed import lost_process
from .seeded_dataset import name_files

_LIBRARY = Path(__file__).resolve().parents[1]
# raised on purpose, with a message that says what was found and expected
_EXPLAINED = (OSError, ValueError, RuntimeError)
# what the system refuses, wherever it happens: a full disk, a limit, a folder that is read-only or not the user's
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def short_errors() -> None:
    """From now on, end with one message where the library refused what it was given; for a configuration's start.

    An error counts as explained if the library itself raised it, or if the system refused a file. Anything else keeps
    its traceback, and so does everything if the environment variable ``SWINFUSE_TRACEBACK`` is set.
    """
    if not os.environ.get("SWINFUSE_TRACEBACK"):
        sys.excepthook = _report


def explanation(error: BaseException) -> str | None:
    """The message of the error in a chain of causes that the library raised on purpose, or the system; else None.

    MONAI wraps what happens inside a configuration in "Failed to evaluate ..." and transforms in "applying
    transform ...": the first explained error from the outside is the one to show.
    """
    component: re.Match[str] | None = None
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        if isinstance(current, _EXPLAINED) and frames and Path(frames[-1].filename).resolve().is_relative_to(_LIBRARY):
            return str(current)
        if isinstance(current, OSError) and current.errno in _REFUSED:
            return f"{current.strerror}: {current.filename or 'a file of this run'}"
        if isinstance(current, ValueError) and component:  # PyTorch's or MONAI's constructor refuses a setting
            return f"{component.group(1)} refuses its settings: {current}"
        component = component or re.match(r"Failed to instantiate component '([^']+)'", str(current))
        current = current.__cause__ or current.__context__
    return None


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = explanation(error) or lost_process(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {message}\n(SWINFUSE_TRACEBACK=1 shows where)", file=sys.stderr)


class StatsLogger(StatsHandler):
    """MONAI's ``StatsHandler``, which logs terms and metrics, without its traceback in the log for every error."""

    def exception_raised(self, _engine: Engine, e: Exception) -> Any:
        """Pass the error on, with the file if a data worker died in the middle of a step; the caller reports it."""
        raise (name_files(e) if isinstance(e, RuntimeError) else e) from e.__cause__
