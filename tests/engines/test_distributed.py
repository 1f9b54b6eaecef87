"""Two processes on the CPU do what one does on the joined batch."""

import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from torch.nn.parallel import DistributedDataParallel
from toy_training import ToyPretrainer, ToyViews, make_items

from swinfuse_components import engines
from swinfuse_components.engines.checkpoint_files import checkpoints_of, read_checkpoint
from swinfuse_components.losses import PretrainingLoss

STEPS = 3


def double(item: dict[str, Any]) -> dict[str, Any]:
    item = ToyViews().set_random_state(int(item["volume"].sum() * 1e6))(item)
    return {
        key: value.double() if torch.is_floating_point(value) else value
        for key, value in item.items()
        if key != "image"
    }


def train(run_dir: Path, batch_size: int, resume: bool = False, epochs: int = 1) -> dict[str, Any]:
    """Losses of each step and the weights after three steps per epoch, with validation and checkpoints."""
    torch.manual_seed(0)
    network = ToyPretrainer().double()
    network.dropout.p = 0.0
    wrapped = DistributedDataParallel(network, static_graph=True) if dist.is_initialized() else network
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
        val_handlers=[
            engines.LossTerms(PretrainingLoss()),
            engines.BestModelSaver(run_dir / "model.pt", network),
        ],
    )
    objects = {"model": network, "optimizer": optimizer}
    checkpoint = engines.RunCheckpoint(run_dir, objects, loader, evaluator, interval=2, resume=resume)
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
        train_handlers=[
            checkpoint,
            ValidationHandler(1, evaluator),
            engines.NonFiniteGuard(checkpoint, loader),
            engines.StopOnSignal(checkpoint, evaluator),
        ],
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(trainer.state.output["loss"].detach()))
    trainer.run()
    return {
        "losses": torch.stack(losses),
        "weights": [parameter.detach().clone() for parameter in network.parameters()],
        "metric": evaluator.state.metrics["val_inpainting"],
    }


def process(rank: int, folder: Path, resume: bool) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # PyTorch moves its differentiable all_gather to another place
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{resume}", rank=rank, world_size=2)
    try:
        torch.save(train(folder / "run", 2, resume), folder / f"{rank}{resume}.pt")
    finally:
        dist.destroy_process_group()


def two_processes(folder: Path, resume: bool = False) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=process, args=(rank, folder, resume)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        if child.exitcode is None:
            os.kill(child.pid or 0, 9)
    assert [child.exitcode for child in children] == [0, 0]
    return [torch.load(folder / f"{rank}{resume}.pt") for rank in range(2)]


def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    one = train(tmp_path / "one", 4)
    first, second = two_processes(tmp_path)
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
    two_processes(tmp_path)
    newest = checkpoints_of(tmp_path / "run")[-1]
    newest.write_bytes(b"damaged")  # both processes have to agree on the one before
    first, second = two_processes(tmp_path, resume=True)
    assert len(first["losses"]) == len(second["losses"]) == 1
    assert all(map(torch.equal, first["weights"], second["weights"]))
