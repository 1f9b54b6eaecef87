"""A training of seconds with everything in it that a resume has to restore: dropout, random crops, a schedule."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.optimizers import WarmupCosineSchedule
from monai.transforms import Compose, RandGaussianNoised, RandomizableTransform
from monai.utils import set_determinism
from torch import nn

from swinfuse_components import engines
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
    return [
        {"image": f"volume_{n}.nii.gz", "volume": rng.random((1, 4, 4, 4), dtype=np.float32)} for n in range(count)
    ]


class Tables(engines.LossCurves):
    """The tables without the picture, which takes longer than all the rest of a toy run."""

    def draw(self) -> Path:
        return self.table


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
        self.loss = PretrainingLoss(density_weight=-1.0) if loss is None else loss
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
            val_handlers=[
                engines.LossTerms(PretrainingLoss()),
                engines.BestModelSaver(run_dir / "model.pt", self.network),
            ],
        )
        self.checkpoint = engines.RunCheckpoint(
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
                self.checkpoint,
                LrScheduleHandler(self.scheduler, print_lr=False, epoch_level=False),
                ValidationHandler(1, self.evaluator),
                engines.NonFiniteGuard(self.checkpoint, self.loader),
                engines.StopOnSignal(self.checkpoint, self.evaluator),
                self.curves,
                *(extra_handlers or []),
            ],
            **trainer_options,
        )

    def run(self) -> "ToyRun":
        self.trainer.run()
        return self


def weights(run: ToyRun) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.network.parameters()]
