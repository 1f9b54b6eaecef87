"""Start of a run: the configuration's check, determinism, the run's folder."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from filelock import FileLock, Timeout
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism

from .configuration import callers, check_configuration, running_configuration
from .errors import short_errors
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

    ``run_dir`` is None for everything but a training; ``seed`` is that of the first process, each other one adds its
    rank; ``resume`` goes on with the run in ``run_dir``.

    Raises:
        ValueError: the configuration has errors, or ``resume`` with settings other than those the run was begun with.
        FileExistsError: ``run_dir`` holds checkpoints, and ``resume`` is off.
        RuntimeError: another process works in ``run_dir``.
        OSError: ``run_dir`` cannot be made or written to.
    """
    short_errors()
    _quiet_monai()
    parser, workflow = next(callers(ConfigParser), None), next(callers(ConfigWorkflow), None)
    stop_signals.install(workflow)
    if parser is not None:
        check_configuration()
    if distributed:
        _join_processes()
    if parser is not None:
        _refuse_missing_device(parser)
        _refuse_writing_into_data(parser, "output_dir" if run_dir is None else "run_dir")
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
        RuntimeError, OSError: another process works in the folder, or it cannot be made or written to.
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


def _join_processes() -> None:
    """Start the process group; the first process alone logs at level INFO."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    idist.sync()  # together: the first question for the rank is a collective operation
    logging.getLogger().setLevel(logging.INFO if idist.get_rank() == 0 else logging.WARNING)


def _refuse_missing_device(parser: ConfigParser) -> None:
    device = parser.get_parsed_content("device") if "device" in parser else "cpu"
    try:
        torch.ones(1, device=torch.device(device)).item()  # which "meta" has none
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device is {device}, which is not to be had here: {str(error).splitlines()[0]}") from error


def _refuse_writing_into_data(parser: ConfigParser, key: str) -> None:
    """Data sets are never written to: what lies in their folders is read as data the next time."""
    if key not in parser:
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
        theirs = dict(json.loads(path.read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): it holds the settings to resume with") from error
    changes = list(_changes(theirs, json.loads(json.dumps(ours, default=str))))
    if changes:
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise ValueError(
            f"the run in {directory} was begun with other settings: {'; '.join(changes[:5])}{more}. Resume it with "
            f"the same settings ('--config_file {path} --run_dir {directory}'), or start a new run from its weights in "
            "another folder"
        )


def _changes(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if place in MAY_CHANGE or place.startswith("_"):
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.get("_target_") == new.get("_target_"):
        for key in new | old if place else [name for name in new if name in old]:
            yield from _changes(old.get(key, "not set"), new.get(key, "not set"), f"{place}::{key}" if place else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and place.count("::"):
        for number, (one, other) in enumerate(zip(old, new)):
            yield from _changes(one, other, f"{place}::{number}")
    elif old != new:
        texts = [str(value.get("_target_", value) if isinstance(value, dict) else value) for value in (old, new)]
        same = max(0, len(os.path.commonprefix(texts)) - 40)  # of long expressions, where they differ
        yield f"{place} was {texts[0][same:][:80]}, is {texts[1][same:][:80]}"


# errors are one sentence from here on: the imports of a configuration come before its references
if (_workflow := next(callers(ConfigWorkflow), None)) is not None:
    short_errors()
    if _workflow.init_id not in _workflow.parser:  # MONAI would begin without it
        sys.exit(f"error: {_workflow.init_id!r} is no part of the configuration: settings are written '--key value'")
