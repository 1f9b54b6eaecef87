"""Start of a run: short errors, the configuration's check, determinism, the run's folder."""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import ignite.distributed as idist
import torch
from filelock import FileLock, Timeout
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from tqdm import tqdm

from .configuration import callers, check_configuration, running_configuration
from .files import remove_temporary_files
from .guards import stop_signals
from .run_folder import checkpoints_of, refuse_used_folder

MAY_CHANGE = frozenset(
    "resume extend max_epochs train::trainer::max_epochs rounds run_name dataset_dir fold_file run_dir "
    "output_dir bundle_root device distributed network batch_size num_workers cache_rate cache_num train::dataset "
    "validate val_interval checkpoint_interval log_interval use_checkpoint sw_batch_size data_policy check_contents "
    "init_checkpoint pretrained_checkpoint swin_unetr_checkpoint imports initialize run training checking "
    "finalize".split()
)
"""What a resumed run may set otherwise. The data list, the joined batch and the number of epochs have checks of their
own where the state is restored."""

_LIBRARY = Path(__file__).resolve().parents[1]
# raised on purpose, with a message that says what was found and expected
_EXPLAINED = (OSError, ValueError, RuntimeError, ImportError)
# what the system refuses, wherever it happens: a full disk, a limit, a folder that is read-only or not the user's
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
# what MONAI's parser says of the part of a configuration that fails
_PART = re.compile(r"Failed to instantiate component '([^']+)'|Failed to evaluate ConfigExpression:\s*(.+)", re.DOTALL)
_locks: dict[Path, FileLock] = {}


def start_run(
    run_dir: str | Path | None = None, *, seed: int = 0, resume: bool = False, distributed: bool = False
) -> None:
    """Begin what a configuration is run for; the one line of its ``initialize``.

    From now on errors of the user's are one sentence. The configuration is checked (:func:`check_configuration`), with
    ``distributed`` the processes that ``torchrun`` started are joined, and the random generators are seeded. A
    training also gives its ``run_dir``: the folder is locked, and a run that may not begin in it is refused before
    any data are read. Signals to stop end the process with exit code 75 from here on. Nothing is written but the lock;
    with the run id ``checking`` not even that.

    Args:
        run_dir: of a training; None for everything else.
        seed: of the first process; each other one adds its rank.
        resume: go on with the run in ``run_dir``.
        distributed: this is one of several processes, named by ``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``.

    Raises:
        ValueError: the configuration has errors, or ``resume`` with settings other than those the run was begun with.
        FileExistsError: ``run_dir`` holds checkpoints, and ``resume`` is off.
        RuntimeError: another process works in ``run_dir``.
        OSError: ``run_dir`` cannot be made or written to.
    """
    short_errors()
    _quiet_monai()
    workflow = next(callers(ConfigWorkflow), None)
    stop_signals.install(workflow)
    if running_configuration() is not None:
        check_configuration()
    if distributed:
        _join_processes()
    _refuse_missing_device()
    _refuse_writing_into_data("output_dir" if run_dir is None else "run_dir")
    set_determinism(seed + idist.get_rank())
    if run_dir is None or (workflow is not None and workflow.run_id == "checking"):
        return
    directory = Path(run_dir).resolve()
    if idist.get_rank() == 0:
        lock_run_dir(directory)
        remove_temporary_files(directory)
        refuse_used_folder(directory, resume)
        if resume:
            _refuse_other_settings(directory)


def lock_run_dir(run_dir: str | Path) -> None:
    """Claim a run's folder for this process until the training ends, or the process, however that ends.

    Raises:
        RuntimeError: another process works in the folder.
        OSError: the folder cannot be made or written to.
    """
    directory = Path(run_dir).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # one lock for the process, in any thread, also where a server imports this module anew for each training
        lock = FileLock(directory / ".lock", thread_local=False, is_singleton=True)
        if not lock.is_locked:
            lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"another process is running in {directory} (it holds {directory / '.lock'}): wait for its end, or give "
            "this run a folder of its own with '--run_dir'"
        ) from error
    except OSError as error:
        raise OSError(error.errno, f"cannot write to the run's folder {directory}: {error.strerror}") from error
    _locks[directory] = lock


def unlock_run_dir(run_dir: str | Path) -> None:
    """Let other processes work in a run's folder: the process may go on after the training, a server for instance."""
    if lock := _locks.pop(Path(run_dir).resolve(), None):
        lock.release()


def _quiet_monai() -> None:
    """Leave out what MONAI says for every file read or scored: of a decoder on a GPU, and of an argument of its own."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for message in ("NvImgCodecPydicomReader", ".*always_return_as_numpy"):
        warnings.filterwarnings("ignore", message=message)


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
        frames = traceback.extract_tb(current.__traceback__)
        if isinstance(current, _EXPLAINED) and frames and _speaks_for_itself(Path(frames[-1].filename).resolve()):
            return str(current)
        if isinstance(current, OSError) and (current.errno in _REFUSED or current.errno and current.filename):
            return f"{current.strerror}: {current.filename or 'a file of this run'}"
        if isinstance(current, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(current):
            return f"out of memory: {str(current).splitlines()[0]}. Try a smaller region, batch, window batch or cache"
        if current.__cause__ is None and any(
            frame.filename.endswith("monai/transforms/io/array.py") for frame in frames
        ):
            return f"cannot read an image: {type(current).__name__}: {current}. The same command does the rest"
        if type(current).__module__.startswith("yaml."):  # which names the file
            return f"not valid YAML: {current}"
        if isinstance(current, SyntaxError):  # in an expression; the library has none
            return f"no Python: {current.text}: {current.msg}"
        if isinstance(current, ModuleNotFoundError) and str(current).startswith("Cannot locate"):  # MONAI's _target_
            return str(current)
        is_running |= any(frame.filename.endswith("ignite/engine/engine.py") for frame in frames)
        if found := _PART.match(str(current)):
            expression = re.sub(r"__local_refs\['([^']+)'\]", r"@\1", ast.literal_eval(found[2] or "''"))
            part = found[1] or expression.removeprefix("$")
        elif part and current.__cause__ is None and not is_running:  # a setting that PyTorch, MONAI or Python refuses
            reason = str(current) if isinstance(current, ValueError) else f"{type(current).__name__}: {current}"
            return f"{part if len(part) < 100 else part[:100] + ' …'} refuses its settings: {reason}"
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


def _join_processes() -> None:
    """Start the process group; the first process alone logs at level INFO."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    idist.sync()  # together: the first question for the rank is a collective operation
    logging.getLogger().setLevel(logging.INFO if idist.get_rank() == 0 else logging.WARNING)


def _refuse_missing_device() -> None:
    parser = next(callers(ConfigParser), None)
    if parser is None or "device" not in parser:
        return
    device = parser.get_parsed_content("device")
    try:
        torch.ones(1, device=torch.device(device)).item()  # which "meta" has none
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device is {device}, which is not to be had here: {str(error).splitlines()[0]}") from error


def _refuse_writing_into_data(key: str) -> None:
    """Data sets are never written to: what lies in their folders is read as data the next time."""
    parser = next(callers(ConfigParser), None)
    if parser is None or key not in parser:
        return
    target = Path(parser.get_parsed_content(key)).resolve()
    for name in {"dataset_dir", "datasets"} & set(parser.get()):
        found = parser.get_parsed_content(name)
        for entry in found if isinstance(found, list) else [found]:
            folder = entry.get("path", entry.get("dataset_dir")) if isinstance(entry, dict) else entry
            if folder and target.is_relative_to(Path(folder).resolve()):
                raise ValueError(f"{key} {target} lies in the data set {folder}: choose a folder outside of it")


def _refuse_other_settings(directory: Path) -> None:
    path, ours = directory / "configuration.json", running_configuration()
    if ours is None or not path.exists():
        if checkpoints_of(directory):
            logging.getLogger(__name__).warning(f"{path} is gone: whether the settings are those of the run is unknown")
        return
    try:
        theirs = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): it holds the settings to resume with") from error
    changes = list(_changes(theirs, json.loads(json.dumps(ours, default=str))))
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise ValueError(
            f"the run in {directory} was begun with other settings: {'; '.join(changes[:5])}{more}. Resume it with "
            f"the same settings ('--config_file {path}'), or start a new run from its weights in another folder"
        )


def _changes(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if place in MAY_CHANGE or place.startswith("_"):
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.get("_target_") == new.get("_target_"):
        for key in old | new if place else old.keys() & new.keys():
            yield from _changes(old.get(key, "not set"), new.get(key, "not set"), f"{place}::{key}" if place else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and place.count("::"):
        for number, (one, other) in enumerate(zip(old, new)):
            yield from _changes(one, other, f"{place}::{number}")
    elif old != new:
        texts = str(old), str(new)
        same = max(0, len(os.path.commonprefix(texts)) - 40)  # of long expressions, where they differ
        yield f"{place} was {texts[0][same:][:80]}, is {texts[1][same:][:80]}"


def _imported_by(workflow: ConfigWorkflow) -> None:
    """Errors are one sentence from here on: the imports of a configuration come before its references."""
    short_errors()
    if workflow.init_id not in workflow.parser:  # MONAI would begin without it
        sys.exit(f"error: {workflow.init_id!r} is no part of the configuration: settings are written '--key value'")


if (_workflow := next(callers(ConfigWorkflow), None)) is not None:
    _imported_by(_workflow)
