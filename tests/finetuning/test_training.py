from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from swinfuse_components.finetuning import EncoderFreezer, layerwise_parameter_groups
from swinfuse_components.networks import SwinFUSE


@pytest.fixture(scope="module")
def network() -> SwinFUSE:
    return SwinFUSE(1, 2, roi_size=64, feature_size=12, window_size=4)


def test_learning_rates_fall_towards_the_input(network: SwinFUSE) -> None:
    groups = layerwise_parameter_groups(network, 1e-3, decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    expected = {
        "swinViT.patch_embed.proj.weight": 1e-3 * 0.5**5,
        "swinViT.layers1.0.blocks.0.norm1.weight": 1e-3 * 0.5**4,
        "swinViT.layers4.0.blocks.0.norm1.weight": 1e-3 * 0.5,
        "out.conv.conv.weight": 1e-3,
    }
    parameters = dict(network.named_parameters())
    for name, rate in expected.items():
        assert rates[id(parameters[name])] == pytest.approx(rate), name
    (module,) = {rates[id(p)] for name, p in parameters.items() if "domain_invariance" in name}
    assert module == pytest.approx(1e-3 * 0.5**5)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_a_decay_that_is_none_is_refused(network: SwinFUSE, decay: float) -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        layerwise_parameter_groups(network, 1e-3, decay=decay)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.swinViT = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.head = nn.Linear(3, 1)


def train(toy: Toy, epochs: int | None) -> list[list[bool]]:
    """Per epoch, whether each linear layer of the encoder and the head moved."""
    optimizer = torch.optim.AdamW(toy.parameters(), lr=0.1, weight_decay=0.1)
    layers = [*toy.swinViT, toy.head]
    moved = []

    def step(engine: Engine, batch: torch.Tensor) -> None:
        before = [layer.weight.detach().clone() for layer in layers]
        optimizer.zero_grad()
        toy.head(toy.swinViT(batch)).sum().backward()
        optimizer.step()
        moved.append([not torch.equal(old, layer.weight) for old, layer in zip(before, layers, strict=True)])

    engine = Engine(step)
    EncoderFreezer(toy, epochs).attach(engine)
    engine.run([torch.ones(2, 3)], max_epochs=3)
    return moved


def test_the_encoder_waits_for_the_decoder() -> None:
    assert train(Toy(), 2) == [[False, False, True], [False, False, True], [True, True, True]]
    assert train(Toy(), 0) == [[True, True, True]] * 3
    assert train(Toy(), None) == [[False, False, True]] * 3


def test_a_resumed_run_is_frozen_or_not_by_its_epoch() -> None:
    toy = Toy()
    freezer = EncoderFreezer(toy, 2)
    freezer(SimpleNamespace(state=SimpleNamespace(epoch=3)))  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in toy.parameters())
    freezer(SimpleNamespace(state=SimpleNamespace(epoch=2)))  # type: ignore[arg-type]
    assert not any(parameter.requires_grad for parameter in toy.swinViT.parameters())


def test_a_network_without_that_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no module named 'swinViT'"):
        EncoderFreezer(nn.Linear(1, 1), 1)
