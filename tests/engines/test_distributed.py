"""Two processes on the CPU do what one does on the joined batch."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from toy_training import ToyPretrainer, ToyViews, make_items

from swinfuse_components import engines
from swinfuse_components.engines.errors import lost_process
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint
from swinfuse_components.losses import PretrainingLoss
from swinfuse_components.networks import SwinFUSEPretrainer

STEPS = 3


def double(item: dict[str, Any]) -> dict[str, Any]:
    item = ToyViews().set_random_state(int(item["volume"].sum() * 1e6))(item)
    return {
        key: value.double() if torch.is_floating_point(value) else value
        for key, value in item.items()
        if key != "image"
    }


def train(run_dir: Path, batch_size: int, resume: bool = False, epochs: int = 1, **options: Any) -> dict[str, Any]:
    """Losses of each batch and the weights after three batches per epoch, with validation and checkpoints."""
    torch.manual_seed(0)
    network = ToyPretrainer().double()
    network.dropout.p = 0.0
    wrapped: torch.nn.Module = network
    exchanges: list[int] = []
    if dist.is_initialized():
        wrapped = DistributedDataParallel(network, static_graph=options.pop("static_graph", True))

        def count_and_average(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            exchanges.append(trainer.state.iteration)
            return allreduce_hook(group, bucket)

        wrapped.register_comm_hook(None, count_and_average)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    dataset = Dataset(make_items(7), double)
    loader = engines.ResumableDataLoader(dataset, batch_size, seed=1)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=engines.ResumableDataLoader(dataset, 2, shuffle=False, endless=False),
        network=wrapped,
        prepare_batch=engines.PreparePretrainingBatch(),
        decollate=False,
        key_val_metric=engines.loss_term_metrics(["inpainting"]),
        metric_cmp_fn=engines.lower_is_better,
        val_handlers=[engines.LossTerms(PretrainingLoss()), engines.ModelSaver(run_dir / "model.pt", network)],
    )
    objects = {"model": network, "optimizer": optimizer}
    guard = engines.RunGuard(run_dir, objects, loader, evaluator, interval=2, resume=resume)
    # the density term draws its samples at random, in each process its own
    loss = PretrainingLoss(density_weight=0.0, gather_distributed=dist.is_initialized())
    losses: list[torch.Tensor] = []
    trainer = engines.PretrainingTrainer(
        device="cpu",
        max_epochs=epochs,
        epoch_length=STEPS,
        train_data_loader=loader,
        network=wrapped,
        loss_function=loss,
        optimizer=optimizer,
        prepare_batch=engines.PreparePretrainingBatch(),
        train_handlers=[guard, ValidationHandler(1, evaluator), *options.pop("more_handlers", [])],
        **options,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output["loss"].detach()))
    trainer.run()
    return {
        "losses": torch.stack(losses),
        "weights": [parameter.detach().clone() for parameter in network.parameters()],
        "metric": evaluator.state.metrics["val_inpainting"],
        "exchanges": exchanges,
    }


def process(rank: int, folder: Path, work: Callable[[], dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save(work(), folder / f"{rank}.pt")
        dist.destroy_process_group()
    except RuntimeError as error:
        (folder / f"{rank}.message").write_text(str(lost_process(error)), encoding="utf-8")
        traceback.print_exc()
        os._exit(1)


class DieAt:
    """Handler: the second process is killed after this iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine: Engine) -> None:
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def two_processes(folder: Path, work: Callable[[], Any], codes: Sequence[int] = (0, 0)) -> list[dict[str, Any]]:
    """What ``work`` returns in each of two processes that end within two minutes, with these exit codes."""
    folder.mkdir(exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=process, args=(rank, folder, work)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        if child.exitcode is None:
            os.kill(child.pid or 0, signal.SIGKILL)
    assert [child.exitcode for child in children] == list(codes)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2) if not codes[rank]]


def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    one = train(tmp_path / "one", 4)
    first, second = two_processes(tmp_path, partial(train, tmp_path / "run", 2))
    mean = (first["losses"] + second["losses"]) / 2
    assert torch.allclose(mean, one["losses"], rtol=1e-12, atol=0)
    for ours, theirs, joined in zip(first["weights"], second["weights"], one["weights"]):
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, joined, rtol=1e-10, atol=1e-12)
    assert first["metric"] == pytest.approx(second["metric"], rel=1e-12)
    state = read_checkpoint(checkpoints_of(tmp_path / "run")[-1])
    assert len(state["random"]) == 2  # every process its own
    assert (tmp_path / "run" / "model.pt").is_file()


def test_distributed_run_resumes(tmp_path: Path) -> None:
    two_processes(tmp_path, partial(train, tmp_path / "run", 2))
    newest = checkpoints_of(tmp_path / "run")[-1]
    newest.write_bytes(b"damaged")  # both processes have to agree on the one before
    first, second = two_processes(tmp_path, partial(train, tmp_path / "run", 2, resume=True))
    assert len(first["losses"]) == len(second["losses"]) == 1
    assert all(map(torch.equal, first["weights"], second["weights"]))


@pytest.mark.parametrize("static_graph", [False, True])
def test_accumulation_exchanges_gradients_once_a_step(tmp_path: Path, static_graph: bool) -> None:
    """Two epochs of three batches in groups of two: the weights change after batches 2, 3, 5 and 6."""
    one = train(tmp_path / "one", 4, epochs=2, accumulation_steps=2)
    work = partial(train, tmp_path / "run", 2, epochs=2, accumulation_steps=2, static_graph=static_graph)
    first, second = two_processes(tmp_path, work)
    # a static graph is recorded in the very first backward pass, which exchanges all the same
    assert sorted(set(first["exchanges"])) == ([1, 2, 3, 5, 6] if static_graph else [2, 3, 5, 6])
    for ours, theirs, joined in zip(first["weights"], second["weights"], one["weights"]):
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, joined, rtol=1e-10, atol=1e-12)


def whole_step(batch: int) -> dict[str, Any]:
    """Loss and gradients of the whole network on this process's part of two sub-volumes."""
    torch.manual_seed(0)
    network = SwinFUSEPretrainer(roi_size=(64, 32, 32), feature_size=12, window_size=4, dim="swinfuse").double()
    wrapped: torch.nn.Module = network
    part = slice(0, batch)
    if dist.is_initialized():
        part = slice(dist.get_rank() * batch, (dist.get_rank() + 1) * batch)
        wrapped = DistributedDataParallel(network, static_graph=True)
    generator = torch.Generator().manual_seed(1)
    views, targets = torch.rand(2, 2, 2, 1, 64, 32, 32, generator=generator, dtype=torch.float64)
    rotations = torch.randint(4, (2, 2), generator=generator)
    target = {"reconstruction": torch.cat([*targets[:, part]]), "rotation": torch.cat([*rotations[:, part]])}
    loss_function = PretrainingLoss(density_weight=0.0, gather_distributed=True)
    loss = loss_function(wrapped(*views[:, part]), target)["loss"]
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "gradients": gradients}


def test_the_networks_whole_step_is_that_of_the_joined_batch(tmp_path: Path) -> None:
    """With the negatives of both processes; the density term, which draws at random in each, is left out."""
    one = whole_step(2)
    first, second = two_processes(tmp_path, partial(whole_step, 1))
    assert torch.allclose((first["loss"] + second["loss"]) / 2, one["loss"], rtol=1e-12, atol=0)
    assert first["gradients"].keys() == second["gradients"].keys() == one["gradients"].keys()
    assert any("domain_invariance" in name for name in one["gradients"])
    for name, joined in one["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name]), name
        scale = joined.abs().max().clamp_min(1e-12)
        assert float((first["gradients"][name] - joined).abs().max() / scale) < 1e-8, name


def test_a_killed_process_ends_the_other_with_a_message(tmp_path: Path) -> None:
    work = partial(train, tmp_path / "run", 2, more_handlers=[DieAt(2)])
    two_processes(tmp_path, work, codes=[1, -signal.SIGKILL])
    message = (tmp_path / "0.message").read_text(encoding="utf-8")
    assert message.startswith("rank 0 of 2 lost another process of this run")
    assert message.endswith("start all of them again, with '--resume True'")


def test_other_errors_are_no_lost_process() -> None:
    assert lost_process(RuntimeError("size mismatch")) is None
    assert lost_process(ValueError("Connection closed by peer")) is None
