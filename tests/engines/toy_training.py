"""A training of seconds with everything in it that a resume has to restore: dropout, random crops, a schedule."""

import csv
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import Compose, RandGaussianNoised, RandomizableTransform
from monai.utils import set_determinism
from torch import nn

from swinfuse_components import engines
from swinfuse_components.engines.run_folder import checkpoints_of, read_checkpoint
from swinfuse_components.losses import PretrainingLoss

ITEMS = 6
EPOCH_LENGTH = 4


class ToyViews(RandomizableTransform):
    """Two random views of an item, with all the keys that pre-training needs."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        item = dict(item)
        for view in "ij":
            turns = int(self.R.randint(4))
            target = torch.rot90(torch.as_tensor(item["volume"]), turns, (1, 2))
            cutout = torch.as_tensor(self.R.random(target.shape) < 0.3)
            item |= {
                f"view_{view}": target.masked_fill(cutout, 0.0),
                f"target_{view}": target,
                f"rotation_{view}": torch.tensor(turns),
                f"cutout_{view}": cutout,
            }
        return {key: value for key, value in item.items() if key != "volume"}


class ToyPretrainer(nn.Module):
    """The outputs of the pre-training network from two linear maps, with dropout on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv3d(1, 3, 2, stride=2)
        self.dropout = nn.Dropout(0.2)
        self.decode = nn.ConvTranspose3d(3, 1, 2, stride=2)
        self.rotation = nn.Linear(3 * 8, 4)
        self.project = nn.Linear(3 * 8, 5)

    def forward(self, view_i: torch.Tensor, view_j: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.dropout(self.embed(torch.cat([view_i, view_j])))
        flat = features.flatten(1)
        stream_i, stream_j = features.chunk(2)
        return {
            "reconstruction": self.decode(features),
            "rotation": self.rotation(flat),
            "contrastive": self.project(flat),
            "stream_i": stream_i,
            "stream_j": stream_j,
        }


def make_items(count: int = ITEMS) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"image": f"volume_{n}.nii.gz", "volume": rng.random((1, 4, 4, 4), dtype=np.float32)} for n in range(count)]


class Tables(engines.LossCurves):
    """The tables without the picture, which takes longer than all the rest of a toy run."""

    def draw(self) -> None:
        pass


class ToyRun:
    """All objects of a run; ``run()`` trains."""

    def __init__(
        self,
        run_dir: Path,
        *,
        max_epochs: int = 3,
        epoch_length: int = EPOCH_LENGTH,
        resume: bool = False,
        extend: bool = False,
        interval: int = 1,
        num_workers: int = 0,
        items: list[dict[str, Any]] | None = None,
        loss: Callable[..., Any] | None = None,
        extra_handlers: list[Any] | None = None,
        **trainer_options: Any,
    ) -> None:
        set_determinism(0)
        transform = Compose([ToyViews(), RandGaussianNoised("view_i", prob=0.5)])
        dataset = Dataset(make_items() if items is None else items, transform)
        self.loader = engines.ResumableDataLoader(dataset, 2, seed=3, num_workers=num_workers)
        self.network = ToyPretrainer()
        self.loss = PretrainingLoss() if loss is None else loss
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        self.scheduler = WarmupCosineSchedule(
            self.optimizer, warmup_steps=2, t_total=max_epochs * epoch_length, warmup_multiplier=0.1
        )
        prepare = engines.PreparePretrainingBatch()
        self.evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=engines.ResumableDataLoader(dataset, 4, seed=5, shuffle=False, endless=False),
            network=self.network,
            prepare_batch=prepare,
            decollate=False,
            key_val_metric=engines.loss_term_metrics(["loss"]),
            additional_metrics=engines.loss_term_metrics(["rotation"]),
            metric_cmp_fn=engines.lower_is_better,
            val_handlers=[engines.LossTerms(PretrainingLoss()), engines.ModelSaver(run_dir / "model.pt", self.network)],
        )
        self.guard = engines.RunGuard(
            run_dir,
            {"model": self.network, "optimizer": self.optimizer, "lr_scheduler": self.scheduler},
            self.loader,
            self.evaluator,
            interval=interval,
            resume=resume,
            extend=extend,
        )
        self.curves = Tables(run_dir, self.optimizer, self.evaluator)
        self.trainer = engines.PretrainingTrainer(
            device="cpu",
            max_epochs=max_epochs,
            epoch_length=epoch_length,
            train_data_loader=self.loader,
            network=self.network,
            loss_function=self.loss,
            optimizer=self.optimizer,
            prepare_batch=prepare,
            train_handlers=[
                self.guard,
                LrScheduleHandler(self.scheduler, print_lr=False, epoch_level=False),
                ValidationHandler(1, self.evaluator),
                self.curves,
                *(extra_handlers or []),
            ],
            **trainer_options,
        )

    def run(self) -> "ToyRun":
        self.trainer.run()
        return self


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_equal_runs(run_dir: Path, reference: Path) -> None:
    """The same tables, last network, best score and best model, bit by bit."""
    for table in ("losses.csv", "validation.csv"):
        assert rows(run_dir / table) == rows(reference / table)
    ours, theirs = (read_checkpoint(checkpoints_of(folder)[-1]) for folder in (run_dir, reference))
    assert ours["evaluator"] == theirs["evaluator"]
    assert all(torch.equal(value, ours["model"][key]) for key, value in theirs["model"].items())
    best, expected = (torch.load(folder / "model.pt", weights_only=True)["model"] for folder in (run_dir, reference))
    assert all(torch.equal(best[key], value) for key, value in expected.items())


def weights(run: ToyRun) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.network.parameters()]


class Started(NamedTuple):
    process: BaseProcess
    steps: Any

    def exit_code(self, seconds: float = 120.0) -> int | None:
        """Wait for the end; ``join(timeout)`` would also wait for the data workers of a killed process."""
        end = time.monotonic() + seconds
        while self.process.exitcode is None and time.monotonic() < end:
            time.sleep(0.02)
        return self.process.exitcode


class Slow:
    """Stretches every step and tells the parent of it, so that a signal finds something to interrupt."""

    def __init__(self, seconds: float, started: Any) -> None:
        self.seconds, self.started = seconds, started

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self) -> None:
        self.started.release()
        time.sleep(self.seconds)


def start(
    run_dir: Path, *, seconds: float = 0.0, in_child: Callable[[], None] | None = None, **options: Any
) -> Started:
    """Run a toy training in a forked process; ``steps`` of the result counts its steps, validation included."""
    context = multiprocessing.get_context("fork")  # what is imported already need not be imported again
    steps = context.Semaphore(0)

    def child() -> None:
        torch.set_num_threads(1)
        # as in the foreground: whoever starts the tests in the background may have them ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if in_child is not None:
            in_child()
        slow = Slow(seconds, steps)
        try:
            engines.lock_run_dir(run_dir)
            run = ToyRun(run_dir, extra_handlers=[slow], **options)
            slow.attach(run.evaluator)
            run.run()
        except Exception as error:
            (run_dir / "error").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
            raise SystemExit(1) from None

    process = context.Process(target=child)
    process.start()
    return Started(process, steps)
