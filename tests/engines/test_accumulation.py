"""The trainer is MONAI's own, also where MONAI's knows no accumulation of gradients."""

from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer

from swinfuse_components.engines import HAS_ACCUMULATION, accumulation, supervised_trainer


def options() -> dict[str, Any]:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    items = torch.randn(4, 1, 3)
    return {
        "device": torch.device("cpu"),
        "max_epochs": 2,
        "train_data_loader": [{"image": item, "label": item.sum(1, keepdim=True)} for item in items],
        "network": network,
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.1),
        "loss_function": torch.nn.functional.mse_loss,
        "decollate": False,
    }


def weights_after(trainer: SupervisedTrainer) -> torch.Tensor:
    trainer.run()
    return trainer.network.weight.detach().clone()


def test_without_accumulation_it_is_the_trainer_of_monai() -> None:
    trainer = supervised_trainer(**options())
    assert type(trainer) is SupervisedTrainer
    torch.testing.assert_close(weights_after(trainer), weights_after(SupervisedTrainer(**options())), rtol=0, atol=0)


@pytest.mark.skipif(not HAS_ACCUMULATION, reason="this MONAI does not accumulate gradients")
def test_steps_are_handed_on() -> None:
    accumulated = weights_after(supervised_trainer(accumulation_steps=2, **options()))
    assert not torch.equal(accumulated, weights_after(supervised_trainer(**options())))


def test_a_monai_without_accumulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulation, "HAS_ACCUMULATION", False)
    assert type(supervised_trainer(accumulation_steps=1, **options())) is SupervisedTrainer
    with pytest.raises(ValueError, match=r"accumulation_steps is 4, and MONAI .* expected 1, or MONAI 1\.6"):
        supervised_trainer(accumulation_steps=4, **options())
