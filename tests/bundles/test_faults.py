"""What the world does to a training bundle: folders it cannot write to, full disks, a second process, bad files."""

import ctypes
import json
import os
import resource
import signal
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from swinfuse_components.engines.run_folder import checkpoints_of

from .small_runs import SmallBundle, message_of

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS: mounts of a process of its own
READ_ONLY = 1  # MS_RDONLY


def mount(folder: Path, flags: int, options: str) -> None:
    """An empty file system of its own over ``folder``, for this process alone; needs root."""
    system = ctypes.CDLL(None, use_errno=True)
    if system.unshare(NEW_MOUNTS) or system.mount(None, b"/", None, 0x44000, None):  # private, recursive
        os._exit(42)
    if system.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()):
        os._exit(42)


def become_nobody() -> None:
    os.setgid(65534)
    os.setuid(65534)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(params=["pretrain", "finetune_msd", pytest.param("finetune_brats", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallBundle]:
    yield SmallBundle(request.param, tmp_path / "data")


@pytest.fixture
def msd(tmp_path: Path) -> SmallBundle:
    return SmallBundle("finetune_msd", tmp_path / "data")


def test_run_folders_that_cannot_be(bundle: SmallBundle, tmp_path: Path) -> None:
    """Below a file; read-only; another user's. Nothing is written anywhere, and the data are not even read."""
    before = files(tmp_path / "data")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    below = bundle.start(tmp_path / "file" / "run", log=tmp_path / "below.log")
    assert f"cannot write to the run's folder {tmp_path}/file/run: Not a directory" in message_of(below)

    (tmp_path / "sealed").mkdir()
    if os.getuid() == 0:
        seal = partial(mount, tmp_path / "sealed", READ_ONLY, "size=1m")
        sealed = bundle.start(tmp_path / "sealed" / "run", seal, log=tmp_path / "sealed.log")
        assert f"cannot write to the run's folder {tmp_path}/sealed/run: Read-only file system" in message_of(sealed)
    os.chmod(tmp_path / "sealed", stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest's are the user's own
        os.chmod(folder, 0o755)
    other = bundle.start(
        tmp_path / "sealed" / "run", become_nobody if os.getuid() == 0 else None, log=tmp_path / "other.log"
    )
    assert f"cannot write to the run's folder {tmp_path}/sealed/run: Permission denied" in message_of(other)
    assert not list((tmp_path / "sealed").iterdir())
    assert files(tmp_path / "data") == before


def test_full_disk(msd: SmallBundle, tmp_path: Path) -> None:
    """A disk of 24 MB: the first checkpoint does not fit, whatever else does."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    (tmp_path / "disk").mkdir()
    disk = partial(mount, tmp_path / "disk", 0, "size=24m")
    run = msd.start(tmp_path / "disk" / "run", disk, log=tmp_path / "log")
    message = message_of(run)
    assert "cannot write" in message and "checkpoint_iteration=" in message
    assert "No space left on device. Nothing that was there is lost" in message


def test_file_too_large_for_a_limit_keeps_the_last_checkpoint(msd: SmallBundle, tmp_path: Path) -> None:
    msd.start(tmp_path / "run").finish()
    checkpoints = {path.name: path.read_bytes() for path in checkpoints_of(tmp_path / "run")}
    best = (tmp_path / "run" / "model.pt").read_bytes()
    limit = min(map(len, checkpoints.values())) // 2

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    again = msd.start(tmp_path / "run", small_files, log=tmp_path / "log", resume=True, extend=True, max_epochs=2)
    assert "File too large. Nothing that was there is lost" in message_of(again)
    assert {path.name: path.read_bytes() for path in checkpoints_of(tmp_path / "run")} == checkpoints
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert len((tmp_path / "run" / "model.pt").read_bytes()) == len(best)  # whole, old or new

    # and a fresh run does not go over the old one
    before = files(tmp_path / "run")
    fresh = msd.start(tmp_path / "run", log=tmp_path / "fresh.log")
    assert "--resume True" in message_of(fresh)
    kept = {name: content for name, content in before.items() if name.endswith((".pt", ".csv"))}
    assert {name: content for name, content in files(tmp_path / "run").items() if name in kept} == kept


def test_second_process_and_a_signal(msd: SmallBundle, tmp_path: Path) -> None:
    first = msd.start(tmp_path / "run", max_epochs=50)
    end = time.monotonic() + 600
    while not (tmp_path / "run" / "losses.csv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    second = msd.start(tmp_path / "run", log=tmp_path / "second.log", resume=True)
    assert f"another process is running in {tmp_path}/run" in message_of(second)
    os.kill(first.process.pid or 0, signal.SIGTERM)
    first.finish(75)
    assert checkpoints_of(tmp_path / "run")


def foreign(bundle: SmallBundle, folder: Path) -> dict[str, Any]:
    """A checkpoint of some other network."""
    torch.save({"state_dict": torch.nn.Linear(3, 3).state_dict()}, folder / "foreign.pt")
    key = "init_checkpoint" if bundle.config.parents[1].name == "pretrain" else "pretrained_checkpoint"
    return {key: str(folder / "foreign.pt")} | ({} if key == "init_checkpoint" else {"start": "pretrained"})


def nan(bundle: SmallBundle, folder: Path) -> dict[str, Any]:
    volumes = sorted(path for path in bundle.dataset.rglob("*.nii.gz"))
    path = next(path for path in volumes if "seg" not in path.name and "labelsTr" not in path.parts)
    image = nib.load(path)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), path)
    return {}


def nothing_there(bundle: SmallBundle, folder: Path) -> dict[str, Any]:
    return {"dataset_dir": str(folder / "nowhere")}


def empty_folder(bundle: SmallBundle, folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"dataset_dir": str(folder / "empty")}


BAD: dict[str, tuple[Callable[[SmallBundle, Path], dict[str, Any]], str]] = {
    "foreign checkpoint": (foreign, "foreign.pt"),
    "NaN in an image": (nan, "1 voxel(s) are NaN or infinite"),
    "no such folder": (nothing_there, "nowhere"),
    "empty folder": (empty_folder, "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_of_a_bundle_ends_in_one_message(name: str, bundle: SmallBundle, tmp_path: Path) -> None:
    make, expected = BAD[name]
    run = bundle.start(tmp_path / "run", **make(bundle, tmp_path))
    assert expected in message_of(run)
    assert not list(tmp_path.rglob("*.pt")) or name == "foreign checkpoint"


def test_every_writer_for_tensorboard_is_told_where(repository: Path) -> None:
    """MONAI's handlers write to ./runs of the working directory otherwise."""

    def handlers(content: Any) -> Iterator[dict[str, Any]]:
        if isinstance(content, dict) and str(content.get("_target_", "")).split(".")[-1].startswith("TensorBoard"):
            yield content
        for inner in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
            yield from handlers(inner)

    found = 0
    for path in (repository / "bundles").glob("*/configs/*.json"):
        for each in handlers(json.loads(path.read_text(encoding="utf-8"))):
            assert "summary_writer" in each, path
            found += 1
    assert found >= 7
