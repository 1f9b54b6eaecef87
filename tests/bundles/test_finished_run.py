"""A finished run and what is done to it through the command line: no command takes anything from it without a word."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swinfuse_components.engines.run_folder import checkpoints_of

from .conftest import write_msd_task
from .small_runs import Run, SmallBundle, command, message_of


class Finished:
    """Fold 0 of a small fine-tuning of two epochs, and commands on a copy of its folder."""

    def __init__(self, bundle: SmallBundle, original: Path, copy: Path) -> None:
        self.bundle, self.folder = bundle, Path(shutil.copytree(original, copy))
        self.before = self.files()

    def files(self) -> dict[str, bytes]:
        """What belongs to the run: all but its lock and the events of TensorBoard."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]
        kept = [path for path in found if "tensorboard" not in path.parts]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in kept}

    def run(self, run_id: str = "training", in_child: Callable[[], Any] | None = None, **changes: Any) -> Run:
        options = {**self.bundle.options, "run_dir": self.folder, **changes}
        return command(self.folder.with_suffix(".log"), run_id, self.bundle.config, in_child=in_child, **options)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallBundle, Path]:
    root = tmp_path_factory.mktemp("finished")
    bundle = SmallBundle("finetune_msd", root / "data")
    bundle.options |= {"num_workers": 0, "max_epochs": 2, "fold": 0}
    command(root / "log", "training", bundle.config, run_dir=root / "run", **bundle.options).finish()
    return bundle, root / "run"


@pytest.fixture
def finished(original: tuple[SmallBundle, Path], tmp_path: Path) -> Finished:
    return Finished(*original, tmp_path / "run")


def test_neither_a_refused_training_nor_a_check_writes_into_it(finished: Finished) -> None:
    assert {"model.json", "configuration.json", "model.pt", "losses.csv"} <= set(finished.before)
    assert "--resume True" in message_of(finished.run(fold=1))
    finished.run("checking", fold=1).finish()
    assert finished.files() == finished.before


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "learning rate": ({"learning_rate": 0.5}, "learning_rate was 0.0001, is 0.5"),
    "seed": ({"seed": 7}, "seed was 0, is 7"),
    "spacing": ({"spacing": [2.0, 2.0, 2.0]}, "spacing was"),
    "fold": ({"fold": 1}, "fold was 0, is 1"),
    "batch": ({"batch_size": 2}, "2 iterations an epoch (data list of 2 items), this configuration has 1 (2 items)"),
    "network": ({"feature_size": 24}, "feature_size was 12, is 24"),
    "epochs": ({"max_epochs": 3}, "--extend True"),
}


@pytest.mark.parametrize("name", [*CHANGES, "data set"])
def test_it_is_not_resumed_with_other_settings(name: str, finished: Finished, tmp_path: Path) -> None:
    if name == "data set":
        other = write_msd_task(tmp_path, "Task91_Other", ("MRI",), ("box",), cases=4, seed=5)
        changes, expected = {"dataset_dir": other}, "Resume with the same data"
    else:
        changes, expected = CHANGES[name]
    assert expected in message_of(finished.run(resume=True, **changes))
    assert finished.files() == finished.before


def test_it_is_extended_with_other_workers_cache_and_place_of_the_data(finished: Finished, tmp_path: Path) -> None:
    moved = shutil.copytree(finished.bundle.dataset, tmp_path / "moved")
    (checksum := checkpoints_of(finished.folder)[-1].with_suffix(".pt.sha256")).write_text("ABC", encoding="utf-8")
    changes = {"num_workers": 1, "cache_num": 1, "dataset_dir": moved}
    finished.run(resume=True, extend=True, max_epochs=3, **changes).finish()
    rows = (finished.folder / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 7 and "\n".join(rows).startswith(finished.before["losses.csv"].decode().replace("\r", "")[:-1])
    assert checksum.read_text(encoding="utf-8") == "ABC"  # of an earlier version; nobody reads it


UNSCORED: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a region of no class": (lambda path: {"regions": {"box": [9]}}, "'box' is [9], expected some of the label values"),
    "weights that were cut": (lambda path: path.write_bytes(path.read_bytes()[:-5000]) and {}, "is truncated"),
    "another fold": (lambda path: {"fold": 1}, "2 of 2 patients to be scored were used in training"),
}


@pytest.mark.parametrize("name", UNSCORED)
def test_it_is_not_scored(finished: Finished, name: str) -> None:
    spoil, expected = UNSCORED[name]
    files = finished.bundle.config, finished.bundle.config.with_name("evaluate.json")
    options = {"dataset_dir": finished.bundle.dataset, "run_dir": finished.folder, "num_folds": 2, "fold": 0}
    options |= {**spoil(finished.folder / "model.pt"), "device": "cpu"}
    before = finished.files()
    run = command(finished.folder.with_suffix(".log"), "evaluating", *files, **options)
    assert expected in message_of(run)
    assert finished.files() == before


def test_another_starts_from_its_weights_under_a_prefix_of_lightning(finished: Finished, tmp_path: Path) -> None:
    weights = torch.load(finished.folder / "model.pt", weights_only=True)["model"]
    torch.save({"state_dict": {f"net.{key}": value for key, value in weights.items()}}, tmp_path / "lightning.ckpt")
    start = {"start": "pretrained", "pretrained_checkpoint": tmp_path / "lightning.ckpt"}
    assert "lightning.ckpt" in finished.run(run_dir=tmp_path / "new", max_epochs=1, **start).finish()


def unreadable() -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    torch.load = load


def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(finished: Finished) -> None:
    message = message_of(finished.run(resume=True, in_child=unreadable))
    assert "cannot read" in message and "Input/output error" in message
    assert finished.files() == finished.before


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_without_its_checkpoints_is_not_begun_anew(finished: Finished, epochs: int) -> None:
    for path in checkpoints_of(finished.folder):
        path.unlink()
    table = finished.folder / "losses.csv"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[: 1 + 2 * epochs]))
    before = finished.files()
    assert "none of its checkpoints" in message_of(finished.run(resume=True))
    assert finished.files() == before


def test_a_new_run_in_its_place_keeps_what_it_left(finished: Finished) -> None:
    for path in checkpoints_of(finished.folder):
        path.unlink()
    finished.run(seed=1, max_epochs=1).finish()
    kept = {name: content for name, content in finished.before.items() if name.endswith((".csv", ".json", "l.pt"))}
    assert len(kept) == 6 and set(kept.values()) <= set(finished.files().values())


PARTS: dict[str, Any] = {"random": [{}], "trainer": {"iteration": "4"}, "data": None, "optimizer": {}}


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_with_odd_parts_is_named(finished: Finished, part: str) -> None:
    path = checkpoints_of(finished.folder)[-1]
    torch.save({**torch.load(path, weights_only=True), part: PARTS[part]}, path)
    before = finished.files()
    assert str(path) in message_of(finished.run(resume=True, extend=True, max_epochs=3))
    assert finished.files() == before


TABLES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:-4],
    "of zeros at its end": lambda content: content + bytes(100),
    "of another program": lambda content: b"epoch,loss\r\n1,0.5\r\n",
    "with a damaged row": lambda content: content.replace(b"\r\n2,", b"\r\n?,"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n in ("of zeros at its end", "of another program") else n
        for n in TABLES
    ],
)
def test_damaged_tables_are_kept_and_named_when_it_goes_on(finished: Finished, name: str) -> None:
    damaged = {table: TABLES[name](finished.before[table]) for table in ("losses.csv", "validation.csv")}
    for table, content in damaged.items():
        (finished.folder / table).write_bytes(content)
    log = finished.run(resume=True, extend=True, max_epochs=3).finish()
    for table, content in damaged.items():
        assert f"{table} is of an earlier run or has damaged rows" in log
        assert (finished.folder / f"{table}.previous").read_bytes() == content
        header, *rows = (finished.folder / table).read_text(encoding="utf-8").splitlines()
        assert {row.count(",") for row in rows} == {header.count(",")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("sign", [".lock", "losses.csv"], ids=["loading", "training"])
def test_a_signal_ends_it_with_code_75(sign: str, number: int, finished: Finished, tmp_path: Path) -> None:
    finished.folder = tmp_path / "new"
    run = finished.run(max_epochs=50)
    end = time.monotonic() + 300
    while not (finished.folder / sign).exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(run.process.pid or 0, number)
    assert "Traceback" not in run.finish(75)
    assert bool(checkpoints_of(finished.folder)) or sign == ".lock"


def stop_at_the_last_model() -> None:
    replace = os.replace

    def stopped(source: Any, target: Any) -> None:
        if Path(target).name == "model_final.pt":
            os.kill(os.getpid(), signal.SIGTERM)
        replace(source, target)

    os.replace = stopped


def test_stopped_after_the_last_step_it_is_finished_when_it_is_resumed(finished: Finished, tmp_path: Path) -> None:
    finished.folder = tmp_path / "new"
    finished.run(in_child=stop_at_the_last_model).finish(75)
    assert not (finished.folder / "model_final.pt").exists()
    finished.run(resume=True).finish()
    assert set(finished.before) <= set(finished.files())


def test_a_second_interrupt_ends_it_at_once_without_a_traceback(finished: Finished, tmp_path: Path) -> None:
    finished.folder = tmp_path / "new"
    run = finished.run(max_epochs=50)
    end = time.monotonic() + 300
    while not (finished.folder / "losses.csv").exists() and time.monotonic() < end:
        time.sleep(0.01)
    for _ in range(2):
        os.kill(run.process.pid or 0, signal.SIGINT)
        time.sleep(0.02)
    assert run.exit_code() in (-signal.SIGINT, 75)  # 75: the step was over before the second came
    assert "Traceback" not in run.log.read_text(encoding="utf-8")
