import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from swinfuse_components.finetuning.adaptation import AdaptingInferer, _warp, disagreement


class Small(nn.Module):
    """Two classes; its normalisation has weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv3d(4, 2, 1))

    def forward(self, image):
        return self.layers(image)


def test_disagreement_is_the_published_formula():
    a, b = torch.rand(2, 2, 3, 4, 3, 4, dtype=torch.float64)
    terms = []
    for one, other in zip(a.reshape(6, -1).numpy(), b.reshape(6, -1).numpy(), strict=True):
        both = sum(2 * x * y for x, y in zip(one, other, strict=True))
        terms.append(both / (0.5 * sum((x + y) ** 2 for x, y in zip(one, other, strict=True))))
    assert float(disagreement(a, b)) == pytest.approx(1 - np.mean(terms), abs=1e-12)
    assert float(disagreement(a, a)) == pytest.approx(0, abs=1e-12)


def test_a_warp_and_its_inverse_give_the_image_back():
    x = torch.linspace(-1, 1, 24)
    smooth = (x[:, None, None] + 0.5 * x[None, :, None] - x)[None, None]  # linear: interpolated exactly
    change = torch.eye(4)
    change[:3] += 0.03 * torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    back = _warp(_warp(smooth, change), torch.linalg.inv(change))
    assert torch.allclose(back[..., 6:-6, 6:-6, 6:-6], smooth[..., 6:-6, 6:-6, 6:-6], atol=1e-4)


def test_answers_agree_more_and_the_weights_come_back():
    network, image = Small(), torch.rand(1, 1, 12, 12, 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    changed, disagreements = {}, []

    class Spy(SimpleInferer):
        def __call__(self, inputs, model, *args, **kwargs):
            changed.update({n: v.clone() for n, v in model.state_dict().items()})
            generator = torch.Generator().manual_seed(7)
            maps = [adapting._answer(inputs, model, generator) for _ in range(8)]
            disagreements.append(float(sum(disagreement(*pair) for pair in zip(maps[::2], maps[1::2], strict=True))))
            return super().__call__(inputs, model, *args, **kwargs)

    adapting = AdaptingInferer(Spy(), (8, 8, 8), rounds=0, learning_rate=0.02, strength=0.1)
    with torch.no_grad():
        plain = adapting(image, network)
        adapting.rounds = 10
        adapted = adapting(image, network)
        again = adapting(image, network)
    assert not torch.equal(plain, adapted) and torch.equal(adapted, again)
    moved = {name for name, value in changed.items() if not torch.equal(value, before[name])}
    assert moved == {"layers.1.weight", "layers.1.bias"}
    assert disagreements[1] < disagreements[0]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())


def test_scans_smaller_than_a_patch_and_networks_without_weights():
    adapting = AdaptingInferer(SimpleInferer(), (8, 8, 8), rounds=1)
    assert adapting(torch.rand(1, 1, 6, 9, 5), Small()).shape == (1, 2, 6, 9, 5)
    with pytest.raises(ValueError, match="no weights to adapt"):
        adapting(torch.rand(1, 1, 8, 8, 8), nn.Conv3d(1, 2, 1))
