"""The contrastive loss against a float64 reference, at its edges, and over two processes."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from swinfuse_components.losses import NTXentLoss, intensity_histograms, partner_accuracy


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(z_i: Tensor, z_j: Tensor, temperature: float) -> Tensor:
    """The definition, one anchor after the other."""
    z = torch.cat([z_i, z_j])
    batch = len(z_i)
    total = z.new_zeros(())
    for anchor in range(2 * batch):
        cosine = [torch.dot(z[anchor], other) / (z[anchor].norm() * other.norm()) for other in z]
        positive = torch.exp(cosine[(anchor + batch) % (2 * batch)] / temperature)
        others = sum(torch.exp(cosine[k] / temperature) for k in range(2 * batch) if k != anchor)
        total = total - torch.log(positive / others)
    return total / (2 * batch)


@pytest.mark.parametrize("batch", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_equals_the_definition_with_gradients(batch: int, temperature: float) -> None:
    z_i, z_j = draw(0, batch, 5).requires_grad_(), draw(1, batch, 5).requires_grad_()
    loss, expected = NTXentLoss(temperature)(z_i, z_j), reference(z_i, z_j, temperature)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for found, wanted in zip(
        torch.autograd.grad(loss, (z_i, z_j)), torch.autograd.grad(expected, (z_i, z_j)), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


def test_equals_monai_where_monai_is_sound() -> None:
    from monai.losses import ContrastiveLoss

    z_i, z_j = draw(0, 4, 16, dtype=torch.float32), draw(1, 4, 16, dtype=torch.float32)
    assert float(NTXentLoss(0.5)(z_i, z_j)) == pytest.approx(float(ContrastiveLoss(0.5)(z_i, z_j)), abs=1e-5)


@settings(max_examples=40, deadline=None)
@example(seed=1, batch=2, temperature=0.01, dtype=torch.float16, scale=1e-4)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 9),
    temperature=st.sampled_from([0.01, 0.07, 0.5]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    scale=st.sampled_from([0.0, 1e-4, 1.0, 1e3]),
)
def test_finite_in_every_precision(seed: int, batch: int, temperature: float, dtype: torch.dtype, scale: float) -> None:
    z = [(scale * draw(seed + k, batch, 32)).to(dtype).requires_grad_() for k in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = NTXentLoss(temperature)(*z)
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item()) and loss.item() >= 0
    exact = [x.detach().double().requires_grad_() for x in z]
    wanted = torch.autograd.grad(NTXentLoss(temperature)(*exact), exact)
    for gradient, number in zip(torch.autograd.grad(loss, z), wanted, strict=True):
        # of short embeddings the gradient itself can leave the range of float16
        assert (gradient.isfinite() | (number.abs() > torch.finfo(dtype).max / 2)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(2, 6))
def test_symmetric_and_blind_to_length_and_order(seed: int, batch: int) -> None:
    z_i, z_j = draw(seed, batch, 6), draw(seed + 1, batch, 6)
    loss = NTXentLoss(0.2)
    value = float(loss(z_i, z_j))
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    assert float(loss(z_j, z_i)) == pytest.approx(value, abs=1e-12)
    assert float(loss(3 * z_i, 0.1 * z_j)) == pytest.approx(value, abs=1e-12)
    assert float(loss(z_i[order], z_j[order])) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_collapsed_embeddings_give_the_bound(batch: int) -> None:
    z = torch.ones(batch, 8)
    assert float(NTXentLoss()(z, z)) == pytest.approx(math.log(2 * batch - 1), abs=1e-6)


def test_one_sub_volume_has_no_negative_and_no_gradient() -> None:
    z = draw(0, 1, 8).requires_grad_()
    loss = NTXentLoss()(z, z.detach() + 1)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(z))


def test_partner_accuracy_counts_nearest_neighbours() -> None:
    z_i, z_j = draw(0, 9, 5), draw(0, 9, 5) + 0.8 * draw(1, 9, 5)
    z = torch.cat([z_i, z_j])
    found = 0
    for anchor in range(18):
        others = [float(torch.cosine_similarity(z[anchor], z[k], dim=0)) if k != anchor else -2.0 for k in range(18)]
        found += others.index(max(others)) == (anchor + 9) % 18
    assert 0 < found < 18
    assert float(partner_accuracy(z_i, z_j)) == pytest.approx(found / 18)
    assert float(partner_accuracy(torch.eye(4), torch.eye(4))) == 1


def test_histograms_are_counts_and_blind_to_anatomy() -> None:
    g = torch.Generator().manual_seed(0)
    views = torch.rand(3, 1, 8, 8, 8, generator=g)
    counted = views.flatten(1)[:, ::8]
    expected = torch.stack([torch.histc(row, 32, 0, 1) for row in counted]) / counted.shape[1]
    torch.testing.assert_close(intensity_histograms(views).square(), expected)
    half = views.half() - 0.5  # out of range and in half precision: in the first and last bin
    assert intensity_histograms(half)[:, 0].min() > 0.6
    blurred = views**2 * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1, 1)
    mirrored = blurred.flip(2, 3)
    found = partner_accuracy(intensity_histograms(blurred), intensity_histograms(mirrored))
    assert float(found) == 1


def test_gather_without_a_process_group_changes_nothing() -> None:
    z_i, z_j = draw(0, 3, 8), draw(1, 3, 8)
    assert torch.equal(NTXentLoss(gather_distributed=True)(z_i, z_j), NTXentLoss()(z_i, z_j))


@pytest.mark.parametrize(
    ("temperature", "shapes", "message"),
    [
        (0, ((2, 3), (2, 3)), "temperature must be positive"),
        (math.nan, ((2, 3), (2, 3)), "temperature must be positive"),
        (0.5, ((2, 3), (3, 3)), "embeddings must be"),
        (0.5, ((0, 3), (0, 3)), "embeddings must be"),
    ],
)
def test_wrong_settings_and_embeddings(temperature: float, shapes: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NTXentLoss(temperature)(*map(torch.zeros, shapes))


# One rank of a distributed run: for each division of the batch, its share through a DDP-wrapped encoder.
WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from swinfuse_components.losses import NTXentLoss

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt", weights_only=True)
plain = torch.nn.Linear(6, 4).double()
plain.load_state_dict(data["encoder"])
encoder = DistributedDataParallel(plain)
results = []
for counts in data["divisions"]:
    encoder.zero_grad()
    start = sum(counts[:rank])
    mine = slice(start, start + counts[rank])
    z_i, z_j = encoder(torch.cat([data["x_i"][mine], data["x_j"][mine]])).chunk(2)
    z_i.retain_grad()
    loss = NTXentLoss(0.1, gather_distributed=True)(z_i, z_j)
    loss.backward()
    gradients = {"weight": plain.weight.grad.clone(), "bias": plain.bias.grad.clone()}
    results.append({"loss": loss.detach(), "z_i": z_i.grad, **gradients})
torch.save(results, f"{folder}/rank{rank}.pt")
dist.barrier()
os._exit(0)  # gloo's threads can abort a process that is being taken down while the other still holds its connection
"""
DIVISIONS = [[3, 3], [4, 1], [1, 1]]


def test_two_ranks_equal_the_joined_batch(tmp_path: Path) -> None:
    """Even and uneven batches, and one sub-volume on each rank, which alone would have no negative."""
    encoder = torch.nn.Linear(6, 4).double()
    x_i, x_j = draw(0, 6, 6), draw(1, 6, 6)
    content = {"x_i": x_i, "x_j": x_j, "encoder": encoder.state_dict(), "divisions": DIVISIONS}
    torch.save(content, tmp_path / "data.pt")
    command = [sys.executable, "-c", WORKER]
    ranks = [subprocess.Popen([*command, str(k), str(tmp_path)], stderr=subprocess.PIPE, text=True) for k in range(2)]
    for process in ranks:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors

    results = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for number, counts in enumerate(DIVISIONS):
        total = sum(counts)
        z_i, z_j = encoder(torch.cat([x_i[:total], x_j[:total]])).chunk(2)
        joined = NTXentLoss(0.1)(z_i, z_j)
        weight, bias, grad_i = torch.autograd.grad(joined, [encoder.weight, encoder.bias, z_i])
        ours = [result[number] for result in results]
        for rank in ours:
            torch.testing.assert_close(rank["loss"], joined.detach(), atol=1e-12, rtol=0)
            torch.testing.assert_close(rank["weight"], weight, atol=1e-12, rtol=1e-10)
            torch.testing.assert_close(rank["bias"], bias, atol=1e-12, rtol=1e-10)
        # before the mean over the ranks, each holds the sum of what both contribute
        torch.testing.assert_close(torch.cat([rank["z_i"] for rank in ours]), 2 * grad_i, atol=1e-12, rtol=1e-10)
