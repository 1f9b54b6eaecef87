"""The leaner attention and the cached masks against MONAI's own, in float64, gradients included."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from monai.networks.nets.swin_unetr import WindowAttention, compute_mask, get_window_size

from swinfuse_components.networks import block_attention
from swinfuse_components.networks.window_attention import EfficientWindowAttention
from swinfuse_components.networks.window_mask import window_mask

CPU = torch.device("cpu")
VOLUMES = [((6, 9, 3), (3, 3, 3)), ((4, 4, 4), (2, 2, 2)), ((5, 10, 5), (5, 5, 5)), ((3, 4, 8), (3, 2, 4))]


def shift_of(size, window):
    return get_window_size(size, window, [w // 2 for w in window])[1]


@pytest.mark.parametrize(("size", "window"), VOLUMES)
def test_mask_equals_monais(size, window):
    shift = shift_of(size, window)
    mask = window_mask(size, window, shift, CPU)
    assert torch.equal(mask.dense(), compute_mask(size, window, shift, CPU))
    assert len(mask.patterns) <= 8
    assert window_mask(size, window, shift, CPU).patterns is mask.patterns  # not built again


def test_mask_made_in_inference_mode_serves_training():
    window_mask.cache_clear()
    with torch.inference_mode():
        window_mask((4, 4, 4), (2, 2, 2), (1, 1, 1), CPU)
    mask = window_mask((4, 4, 4), (2, 2, 2), (1, 1, 1), CPU)
    assert not mask.patterns.is_inference()


def attention(window=(3, 3, 3), heads=2, scale=1.0, **kwargs):
    torch.manual_seed(0)
    monai = WindowAttention(8, heads, window, qkv_bias=True, **kwargs).double()
    torch.nn.init.normal_(monai.relative_position_bias_table)
    with torch.no_grad():
        monai.qkv.weight.mul_(scale)
    return monai


@pytest.mark.parametrize("way", ["plain", "blocks", "fused"])
@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second has scores too large for the exponential as they are
@pytest.mark.parametrize("elements", [1, 5000])  # one window at a time, several at a time
@pytest.mark.parametrize("masked", [True, False])
def test_equals_monai(way, scale, elements, masked, monkeypatch):
    monkeypatch.setattr(block_attention, "ELEMENTS_AT_A_TIME", elements)
    monai = attention(scale=scale)
    size, window, batch = (6, 9, 3), (3, 3, 3), 2
    shift = shift_of(size, window)
    mask = window_mask(size, window, shift, CPU) if masked else None
    dense = compute_mask(size, window, shift, CPU) if masked else None
    source = copy.deepcopy(monai)
    ours = EfficientWindowAttention(source, way)
    assert list(ours.state_dict()) == list(monai.state_dict())
    inputs = [torch.randn(batch * 6, 27, 8, dtype=torch.float64) for _ in range(2)]
    grads = []
    for net, m in ((ours, mask), (monai, dense)):
        x = inputs[0].clone().requires_grad_()
        out = net(x, m)
        (out * inputs[1]).sum().backward()
        grads.append([out, x.grad, *(p.grad for p in net.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(net(x, m), out, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_blocks_pass_gradcheck():
    torch.manual_seed(0)
    qkv = torch.randn(3, 4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.zeros(2, 4, 4)
    masks[1, :2, 2:] = -100
    apply = block_attention.BlockAttention.apply
    assert torch.autograd.gradcheck(lambda a, b: apply(a, b, masks, (1, 0, 1), 0.7), (qkv, bias))


def test_blocks_leave_their_inputs_alone():
    qkv = torch.randn(1, 4, 3, 1, 2)
    before = qkv.clone()
    block_attention.BlockAttention.apply(qkv, torch.zeros(1, 4, 4), torch.zeros(1, 1, 1), (0,), 0.5)
    assert torch.equal(qkv, before)


def test_smaller_windows_than_the_table():
    monai = attention(window=(3, 3, 3))
    ours = EfficientWindowAttention(copy.deepcopy(monai), "blocks")
    x = torch.randn(4, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x, None), monai(x, None), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("setting", "dtype", "dropout", "way"),
    [
        ("auto", torch.float32, 0.0, "blocks"),
        ("auto", torch.bfloat16, 0.0, "plain"),
        ("auto", torch.float32, 0.1, "plain"),
        ("fused", torch.float32, 0.0, "fused"),
        ("plain", torch.float32, 0.0, "plain"),
    ],
)
def test_choice_of_the_way(setting, dtype, dropout, way):
    ours = EfficientWindowAttention(attention(attn_drop=dropout), setting)
    assert ours._way(torch.zeros(1, dtype=dtype)) == way
    assert EfficientWindowAttention(attention(attn_drop=dropout), setting).eval()._way(torch.zeros(1)) != "plain" or (
        setting == "plain"
    )


def test_half_precision_stays_close():
    monai = attention().float()
    ours = EfficientWindowAttention(copy.deepcopy(monai))
    x = torch.randn(6, 27, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ours(x, None), monai(x, None))
    with pytest.raises(ValueError, match="attention: found 'flash'"):
        EfficientWindowAttention(monai, "flash")


def test_windows_of_one_kind_stand_together():
    kinds = (0, 1, 0, 3)
    order, back, steps = block_attention.order_by_kind(kinds, 8, 3, CPU)
    assert sorted(order.tolist()) == list(range(8))
    assert torch.equal(order[back], torch.arange(8))
    covered = list(itertools.chain.from_iterable(range(first, last) for _, first, last in steps))
    assert covered == list(range(8))
    for kind, first, last in steps:
        assert 0 < last - first <= 3
        assert {kinds[w % 4] for w in order[first:last].tolist()} == {kind}
