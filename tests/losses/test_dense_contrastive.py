"""The dense contrastive loss against its definition in float64, where it looks, and over two processes."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from swinfuse_components.losses import DenseContrastiveLoss, PretrainingLoss


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(maps: list[Tensor], temperature: float) -> Tensor:
    """Every place of every volume against every other place of both views, one after the other."""
    losses = []
    for x in maps:
        views = x.permute(0, 2, 3, 4, 1).reshape(2, -1, x.shape[1])
        z = torch.cat([views[0], views[1]])
        z, places = z / z.norm(dim=1, keepdim=True), len(views[0])
        for anchor in range(2 * places):
            similar = torch.exp(z @ z[anchor] / temperature)
            partner = (anchor + places) % (2 * places)
            losses.append(-torch.log(similar[partner] / (similar.sum() - similar[anchor])) / (2 * places))
    return torch.stack(losses).sum() / len(maps)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_definition_with_gradients(temperature: float) -> None:
    maps = [draw(0, 4, 5, 2, 3, 2).requires_grad_(), draw(1, 4, 6, 1, 2, 1).requires_grad_()]
    loss, expected = DenseContrastiveLoss(temperature, places=1000)(maps), reference(maps, temperature)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for found, wanted in zip(torch.autograd.grad(loss, maps), torch.autograd.grad(expected, maps), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-9)


def test_the_places_are_the_same_in_both_views() -> None:
    maps = draw(0, 2, 16, 6, 6, 6)
    loss = DenseContrastiveLoss(0.01, places=50)
    assert float(loss([torch.cat([maps, maps])])) < 1e-6
    assert float(loss([torch.cat([maps, maps.flip(2)])])) > 1


def test_only_places_that_both_views_show_are_drawn() -> None:
    maps, shown = draw(0, 4, 5, 2, 2, 2), torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    shown[0, 0, :2, :2, :2] = True
    shown[1, 0, 2:, 2:, 2:] = True
    shown[1, 0, 0, 0, 0] = True  # an eighth of a voxel of the map: not enough
    first, second = maps.chunk(2)
    kept = [torch.stack([view[0, :, 0, 0, 0], view[1, :, 1, 1, 1]]) for view in (first, second)]
    expected = reference([torch.cat(kept).view(4, 5, 1, 1, 1)], 0.1)
    assert float(DenseContrastiveLoss(0.1)([maps], shown)) == pytest.approx(float(expected), abs=1e-9)
    empty = DenseContrastiveLoss(0.1)([maps], torch.zeros_like(shown))
    assert float(empty) == pytest.approx(float(reference([maps], 0.1)), abs=1e-9)


def test_collapsed_maps_give_the_logarithm_of_the_places() -> None:
    loss = DenseContrastiveLoss(places=10)([torch.ones(2, 4, 4, 4, 4)])
    assert float(loss) == pytest.approx(math.log(2 * 10 - 1), abs=1e-6)


def test_as_a_term_of_the_pre_training_loss() -> None:
    maps = [draw(0, 4, 5, 2, 2, 2)]
    alone = PretrainingLoss(0, 0, 0, 0, dense_weight=2.0, dense={"temperature": 0.3, "places": 100})
    shown = {"shown": torch.ones(2, 1, 4, 4, 4)}
    terms = alone({"dense": maps}, shown)
    assert float(terms["dense"]) == pytest.approx(float(reference(maps, 0.3)), abs=1e-12)
    assert float(terms["loss"]) == pytest.approx(2 * float(terms["dense"]))
    with pytest.raises(ValueError, match=r"the dense term \(weight 2\) needs prediction\['dense'\]: set dense_size"):
        alone({}, shown)
    with pytest.raises(ValueError, match=r"needs target\['shown'\].*same_rotation true"):
        alone({"dense": maps}, {})


WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from swinfuse_components.losses import DenseContrastiveLoss

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt", weights_only=True)
plain = torch.nn.Conv3d(2, 4, 1).double()
plain.load_state_dict(data["head"])
head = DistributedDataParallel(plain)
mine = [slice(0, 2), slice(2, 3)][rank]
loss = DenseContrastiveLoss(0.2, 1000, gather_distributed=True)([head(torch.cat([v[mine] for v in data["views"]]))])
loss.backward()
collapsed = DenseContrastiveLoss(places=10, gather_distributed=True)([torch.ones(2, 4, 4, 4, 4)])
torch.save({"loss": loss.detach(), "weight": plain.weight.grad, "collapsed": collapsed}, f"{folder}/rank{rank}.pt")
dist.barrier()
os._exit(0)  # gloo's threads can abort a process that is being taken down while the other still holds its connection
"""


def test_two_ranks_equal_the_joined_batch(tmp_path: Path) -> None:
    """Two sub-volumes on one rank, one on the other."""
    head = torch.nn.Conv3d(2, 4, 1).double()
    views = [draw(0, 3, 2, 2, 2, 2), draw(1, 3, 2, 2, 2, 2)]
    torch.save({"head": head.state_dict(), "views": views}, tmp_path / "data.pt")
    command = [sys.executable, "-c", WORKER]
    ranks = [subprocess.Popen([*command, str(k), str(tmp_path)], stderr=subprocess.PIPE, text=True) for k in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    joined = DenseContrastiveLoss(0.2, places=1000)([head(torch.cat(views))])
    (weight,) = torch.autograd.grad(joined, [head.weight])
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], joined.detach(), atol=1e-12, rtol=0)
        torch.testing.assert_close(found["weight"], weight, atol=1e-12, rtol=1e-9)
        assert float(found["collapsed"]) == pytest.approx(math.log(2 * 10 - 1), abs=1e-6)  # five places of each rank
