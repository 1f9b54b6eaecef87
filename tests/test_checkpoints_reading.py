"""Files are read without running code, and what cannot be read is named and explained."""

import argparse
import collections
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swinfuse_components.checkpoints import CheckpointError, find_state_dict, read_checkpoint

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}


class Malicious:
    """Unpickling this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("as_archive", [True, False])
@pytest.mark.parametrize("place", ["value", "beside"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, as_archive: bool, place: str) -> None:
    witness, path = tmp_path / "witness", tmp_path / "model.pt"
    bad = Malicious(f"touch {witness}")
    content = {"model": WEIGHTS | {"b": bad}} if place == "value" else {"model": WEIGHTS, "extra": [1, {"x": bad}]}
    torch.save(content, path, _use_new_zipfile_serialization=as_archive)
    with pytest.raises(CheckpointError, match=r"model\.pt is refused: .*system.*any code") as caught:
        read_checkpoint(path)
    assert "save its weights alone" in str(caught.value)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("foreign", "name"),
    [(argparse.Namespace(lr=1), "argparse.Namespace"), (torch.nn.Linear(1, 1), "Linear"), (Path("x"), "Path")],
)
def test_foreign_objects_are_named(tmp_path: Path, foreign: object, name: str) -> None:
    torch.save({"state_dict": WEIGHTS, "args": foreign}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=f"object made by .*{name}"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("as_archive", [True, False])
def test_plain_values_and_numpy_scalars_are_read(tmp_path: Path, as_archive: bool) -> None:
    content = {
        "state_dict": collections.OrderedDict(WEIGHTS),
        "best_acc": np.float64(0.75),
        "epoch": np.int64(3),
        "history": [1, 2.5, "x", None, True, (1, 2)],
    }
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=as_archive)
    read = read_checkpoint(tmp_path / "model.pt")
    assert read["best_acc"] == 0.75 and read["epoch"] == 3 and read["history"] == content["history"]
    assert torch.equal(read["state_dict"]["a.weight"], WEIGHTS["a.weight"])


def test_no_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match=r"empty\.pt is empty"):
        read_checkpoint(tmp_path / "empty.pt")


def test_torchscript_is_a_program(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "model.ts")
    with pytest.raises(CheckpointError, match=r"model\.ts is a TorchScript archive"):
        read_checkpoint(tmp_path / "model.ts")


def saved(as_archive: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": WEIGHTS}, Path(folder) / "model.pt", _use_new_zipfile_serialization=as_archive)
        return (Path(folder) / "model.pt").read_bytes()


SAVED = {as_archive: saved(as_archive) for as_archive in (True, False)}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), as_archive=st.booleans())
def test_truncated_anywhere(tmp_path: Path, data: st.DataObject, as_archive: bool) -> None:
    whole, path = SAVED[as_archive], tmp_path / "model.pt"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError, match=r"model\.pt .*(truncated|empty|refused)"):
        read_checkpoint(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_in_an_archive_is_noticed_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    whole, path = bytearray(SAVED[True]), tmp_path / "model.pt"
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    try:
        tensors = find_state_dict(read_checkpoint(path), path)
    except CheckpointError as error:
        assert "model.pt" in str(error)
    else:
        assert all(torch.equal(tensors[key], value) for key, value in WEIGHTS.items())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=300), prefix=st.sampled_from([b"", b"PK\x03\x04", SAVED[False][:40]]))
def test_arbitrary_bytes(tmp_path: Path, content: bytes, prefix: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(prefix + content)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        find_state_dict(read_checkpoint(path), path)


@pytest.mark.parametrize("key", ["model", "state_dict", "network", None])
def test_weights_are_found_where_training_codes_put_them(key: str | None) -> None:
    content = {"epoch": 3, key: WEIGHTS} if key else WEIGHTS
    assert set(find_state_dict(content)) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 1, "lr": 0.1}, "found the keys 'epoch', 'lr'"),
        ({}, "found the keys nothing"),
    ],
)
def test_no_weights_in_it(content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_state_dict(content, "model.pt")
