"""Errors of the user's in one sentence: what to say of an exception, in place of a traceback."""

import ast
import errno
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import ignite.distributed as idist
import torch
from tqdm import tqdm

_LIBRARY = Path(__file__).resolve().parents[1]
# raised on purpose, with a message that says what was found and expected
_EXPLAINED = (OSError, ValueError, RuntimeError, ImportError)
# what the system refuses, wherever it happens: a full disk, a limit, a folder that is read-only or not the user's
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
# what MONAI's parser says of the part of a configuration that fails
_PART = re.compile(r"Failed to instantiate component '([^']+)'|Failed to evaluate ConfigExpression:\s*(.+)", re.DOTALL)


def short_errors() -> None:
    """From now on, end with one message where the library refused what it was given.

    Nor does a log whose reader has gone (``| head``), or TensorBoard's thread, print tracebacks of its own.

    An error counts as explained if the library itself raised it, if the system refused a file, or if it came of a
    part of a configuration before any engine was running. Anything else keeps its traceback, and so does everything
    if the environment variable ``SWINFUSE_TRACEBACK`` is set.
    """
    if not os.environ.get("SWINFUSE_TRACEBACK"):
        sys.excepthook = _report
        threading.excepthook = _report_of_thread
        logging.raiseExceptions = False


def explanation(error: BaseException) -> str | None:
    """The message of the error in a chain of causes that the library raised on purpose, or the system; else None.

    MONAI wraps what happens inside a configuration in "Failed to evaluate ..." and transforms in "applying
    transform ...": the first explained error from the outside is the one to show.
    """
    part, is_running = "", False
    for current in _causes(error):
        files = [frame.filename for frame in traceback.extract_tb(current.__traceback__)]
        if (message := _by_itself(current, files)) is not None:
            return message
        is_running |= any(file.endswith("ignite/engine/engine.py") for file in files)
        if found := _PART.match(str(current)):
            expression = re.sub(r"__local_refs\['([^']+)'\]", r"@\1", ast.literal_eval(found[2] or "''"))
            part = found[1] or expression.removeprefix("$")
        elif part and current.__cause__ is None and not is_running:  # a setting that PyTorch, MONAI or Python refuses
            reason = str(current) if isinstance(current, ValueError) else f"{type(current).__name__}: {current}"
            return f"{part if len(part) < 100 else part[:100] + ' …'} refuses its settings: {reason}"
    return None


def _by_itself(error: BaseException, files: list[str]) -> str | None:
    """What one error says that needs no other to be understood; ``files`` are those of its traceback."""
    if isinstance(error, _EXPLAINED) and files and _speaks_for_itself(Path(files[-1]).resolve()):
        return str(error)
    if isinstance(error, OSError) and (error.errno in _REFUSED or error.errno and error.filename):
        return f"{error.strerror}: {error.filename or 'a file of this run'}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: {str(error).splitlines()[0]}. Try a smaller region, batch, window batch or cache"
    if error.__cause__ is None and any(file.endswith("monai/transforms/io/array.py") for file in files):
        return f"cannot read an image: {type(error).__name__}: {error}"
    if type(error).__module__.startswith("yaml."):  # which names the file
        return f"not valid YAML: {error}"
    if isinstance(error, SyntaxError):  # in an expression; the library has none
        return f"no Python: {error.text}: {error.msg}"
    if isinstance(error, ModuleNotFoundError) and str(error).startswith("Cannot locate"):  # MONAI's _target_
        return str(error)
    return None


def _speaks_for_itself(source: Path) -> bool:
    """Whether who raises errors there does so on purpose: the library, one of the scripts, MONAI's command line."""
    is_own = source.is_relative_to(_LIBRARY) or source == Path(sys.argv[0]).resolve()
    return is_own or "/".join(source.parts[-3:]) in ("monai/bundle/workflows.py", "monai/bundle/reference_resolver.py")


def lost_process(error: BaseException) -> str | None:
    """What to say when an exchange between processes failed, which mostly means that another one died; else None.

    Gloo finds out at once, NCCL within the time limit of the process group (10 minutes unless
    ``init_process_group`` is given another); ``torchrun`` ends the other processes of a machine itself.
    """
    for current in _causes(error):
        text = str(current)
        lost = isinstance(current, torch.distributed.DistError) or "gloo" in text or "Connection closed by peer" in text
        if isinstance(current, RuntimeError) and lost:
            found = text.partition("\n")[0].partition(". ")[0]
            return (
                f"rank {idist.get_rank()} of {idist.get_world_size()} lost another process of this run ({found}). "
                "Look for the first error among all ranks; then start all of them again, with '--resume True'"
            )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies behind it, from the outside in."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = explanation(error) or lost_process(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
    else:
        for bar in list(getattr(tqdm, "_instances", ())):  # the message begins on a line of its own
            bar.close()
        print(f"error: {message}\n(SWINFUSE_TRACEBACK=1 shows where)", file=sys.stderr)


def _report_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """What a thread could not write, the main thread will say."""
    if arguments.exc_value is None or explanation(arguments.exc_value) is None:
        threading.__excepthook__(arguments)
