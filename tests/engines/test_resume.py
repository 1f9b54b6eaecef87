import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from toy_training import EPOCH_LENGTH, ToyRun, assert_equal_runs, rows, weights

from swinfuse_components.engines.files import atomic_save
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint


class Crash:
    """Ends the process' work at an event, as a power cut would: nothing is saved afterwards."""

    def __init__(self, iteration: int, event: Events = Events.ITERATION_COMPLETED) -> None:
        self.iteration, self.event = iteration, event

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration == self.iteration:
            raise KeyboardInterrupt


# in the first epoch, at the end of one, in the middle of another, before and during a validation
@pytest.mark.parametrize("iteration", [1, EPOCH_LENGTH, EPOCH_LENGTH + 2, 3 * EPOCH_LENGTH - 1])
@pytest.mark.parametrize(("interval", "event"), [(1, Events.ITERATION_COMPLETED), (0, Events.ITERATION_STARTED)])
def test_resumed_run_is_the_run_uninterrupted(
    reference: Path, tmp_path: Path, iteration: int, interval: int, event: Events
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ToyRun(tmp_path, interval=interval, extra_handlers=[Crash(iteration, event)]).run()
    torch.rand(100)  # another process has another random state
    ToyRun(tmp_path, interval=interval, resume=True, num_workers=1).run()
    assert_equal_runs(tmp_path, reference)


def test_learning_rate_and_losses_differ_without_the_state(reference: Path, tmp_path: Path) -> None:
    """The comparison above can fail: a run from other random states gives other losses."""
    run = ToyRun(tmp_path)
    torch.manual_seed(99)
    run.run()
    assert rows(tmp_path / "losses.csv") != rows(reference / "losses.csv")


def test_accumulated_gradients_survive(tmp_path: Path) -> None:
    options = {"accumulation_steps": 2, "epoch_length": 5, "max_epochs": 2}
    whole = ToyRun(tmp_path / "whole", **options).run()
    with pytest.raises(KeyboardInterrupt):
        ToyRun(tmp_path / "halves", extra_handlers=[Crash(4, Events.ITERATION_STARTED)], **options).run()
    assert "gradients" in read_checkpoint(checkpoints_of(tmp_path / "halves")[-1])
    resumed = ToyRun(tmp_path / "halves", resume=True, **options).run()
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_finished_run_resumes_to_nothing(reference: Path, tmp_path: Path) -> None:
    """Of whose checkpoints the last two are there."""
    shutil.copytree(reference, tmp_path / "run")
    again = ToyRun(tmp_path / "run", resume=True).run()
    assert_equal_runs(tmp_path / "run", reference)
    names = ["checkpoint_iteration=00000011.pt", "checkpoint_iteration=00000012.pt"]
    assert [path.name for path in checkpoints_of(tmp_path / "run")] == names
    assert all(map(torch.equal, weights(again), read_checkpoint(tmp_path / "run" / names[1])["model"].values()))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle"])
def test_damaged_checkpoint_is_named_and_the_one_before_used(
    reference: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ToyRun(tmp_path, extra_handlers=[Crash(7, Events.ITERATION_STARTED)]).run()
    newest = checkpoints_of(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    with zipfile.ZipFile(newest) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[largest.header_offset + 200] ^= 1  # beyond the header and its padding
        newest.write_bytes(content)
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        atomic_save({"trainer": {}, "model": Crash(1)}, newest)
    ToyRun(tmp_path, resume=True).run()
    assert str(newest) in caplog.text
    assert_equal_runs(tmp_path, reference)


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    ToyRun(tmp_path, max_epochs=1).run()
    for path in checkpoints_of(tmp_path):
        path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="no sound checkpoint"):
        ToyRun(tmp_path, max_epochs=1, resume=True).run()


def test_longer_plan_needs_a_word(tmp_path: Path) -> None:
    ToyRun(tmp_path, max_epochs=2).run()
    with pytest.raises(ValueError, match="plan of 2 epochs, this configuration has 4.*--extend True"):
        ToyRun(tmp_path, max_epochs=4, resume=True).run()


def test_extended_schedule_follows_the_new_plan(tmp_path: Path) -> None:
    ToyRun(tmp_path / "run", max_epochs=2).run()
    ToyRun(tmp_path / "run", max_epochs=4, resume=True, extend=True).run()
    ToyRun(tmp_path / "planned", max_epochs=4).run()
    extended, planned = (
        [float(row["lr"]) for row in rows(tmp_path / name / "losses.csv")] for name in ("run", "planned")
    )
    assert extended[8:] == pytest.approx(planned[8:], rel=1e-12)
    assert extended[:8] != planned[:8]  # the first part was made under the short plan


def test_other_network_is_refused_with_its_keys(tmp_path: Path) -> None:
    ToyRun(tmp_path, max_epochs=1).run()
    other = ToyRun(tmp_path, max_epochs=1, resume=True)
    other.network.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"does not fit 'model'[\s\S]*extra.weight"):
        other.run()


def test_worse_model_never_replaces_a_better_one(tmp_path: Path) -> None:
    run = ToyRun(tmp_path, max_epochs=1).run()
    best = (tmp_path / "model.pt").read_bytes()
    resumed = ToyRun(tmp_path, max_epochs=2, resume=True, extend=True)
    resumed.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: [p.data.normal_(0, 50) for p in resumed.network.parameters()]
    )
    resumed.run()
    assert (tmp_path / "model.pt").read_bytes() == best
    assert resumed.evaluator.state.best_metric == run.evaluator.state.best_metric


def test_model_of_an_earlier_run_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"precious")
    ToyRun(tmp_path, max_epochs=1).run()
    assert (tmp_path / "model.pt.previous").read_bytes() == b"precious"
    assert set(torch.load(tmp_path / "model.pt", weights_only=True)) == {"model"}
