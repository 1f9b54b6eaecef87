"""The leaner attention and the cached masks against MONAI's own, in float64, gradients included."""

import copy

import pytest
import torch
from monai.networks.nets.swin_unetr import (
    BasicLayer,
    PatchMerging,
    PatchMergingV2,
    WindowAttention,
    compute_mask,
    get_window_size,
)

from swinfuse_components.networks.fast import EfficientWindowAttention, blocks
from swinfuse_components.networks.fast.stage import SwinStage, merge
from swinfuse_components.networks.fast.windows import window_mask, window_plan
from swinfuse_components.networks.merging import LegacyPatchMerging

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


def attention(window=(3, 3, 3), heads=2, scale=1.0, **kwargs):
    torch.manual_seed(0)
    monai = WindowAttention(8, heads, window, qkv_bias=True, **kwargs).double()
    torch.nn.init.normal_(monai.relative_position_bias_table)
    with torch.no_grad():
        monai.qkv.weight.mul_(scale)
    return monai


def check_equal(ours, theirs, inputs, tolerance=1e-10):
    """Outputs and all gradients of two modules, each called with its own arguments."""
    upstream, grads = None, []
    for net, (x, *others) in zip((ours, theirs), inputs, strict=True):
        x = x.clone().requires_grad_()
        out = net(x, *others)
        upstream = torch.randn_like(out) if upstream is None else upstream
        (out * upstream).sum().backward()
        grads.append([out, x.grad, *(p.grad for p in net.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(net(x, *others), out, rtol=tolerance, atol=tolerance)
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("way", ["plain", "fused"])
@pytest.mark.parametrize("masked", [True, False])
def test_windows_equal_monai(way, masked):
    monai = attention()
    size, window, batch = (6, 9, 3), (3, 3, 3), 2
    shift = shift_of(size, window)
    mask = window_mask(size, window, shift, CPU) if masked else None
    dense = compute_mask(size, window, shift, CPU) if masked else None
    ours = EfficientWindowAttention(copy.deepcopy(monai), way)
    assert list(ours.state_dict()) == list(monai.state_dict())
    x = torch.randn(batch * 6, 27, 8, dtype=torch.float64)
    check_equal(ours, monai, [(x, mask), (x, dense)])


def layer(window, scale=1.0, **kwargs):
    """Two Swin blocks, one of them with shifted windows."""
    torch.manual_seed(0)
    monai = BasicLayer(8, depth=2, num_heads=2, window_size=window, drop_path=[0.0, 0.0], **kwargs).double()
    for block in monai.blocks:
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
        with torch.no_grad():
            block.attn.qkv.weight.mul_(scale)
        if block.attn.qkv.bias is not None:
            torch.nn.init.normal_(block.attn.qkv.bias)
    return monai


# No padding; padding on every axis, with windows that hold one voxel; a window larger than an axis, and smaller ones.
PADDED = [((6, 9, 3), (3, 3, 3)), ((7, 8, 10), (3, 3, 3)), ((3, 9, 5), (4, 4, 4)), ((6, 6, 5), (4, 2, 3))]


@pytest.mark.parametrize("way", ["plain", "blocks", "fused"])
@pytest.mark.parametrize(("size", "window"), PADDED)
def test_blocks_of_a_volume_equal_monai(way, size, window):
    monai = layer(window, qkv_bias=True)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    check_equal(SwinStage(copy.deepcopy(monai), way), monai, [(x,), (x,)])


@pytest.mark.parametrize("scale", [1.0, 60.0])  # the second has scores too large for the exponential as they are
@pytest.mark.parametrize("elements", [1, 1500, 10**6])  # one window at a time, several, several heads
@pytest.mark.parametrize("options", [{"qkv_bias": True}, {"qkv_bias": False}, {"use_checkpoint": True}])
def test_however_many_windows_at_a_time(scale, elements, options, monkeypatch):
    monkeypatch.setattr(blocks, "ELEMENTS_AT_A_TIME", elements)
    monai = layer((3, 3, 3), scale, **options)
    x = torch.randn(2, 8, 7, 8, 10, dtype=torch.float64)
    # Large scores have large gradients, and those of the keys' bias add up to zero.
    check_equal(SwinStage(copy.deepcopy(monai), "blocks"), monai, [(x,), (x,)], 1e-10 if scale == 1 else 1e-8)


def test_blocks_in_float32_with_large_scores_stay_finite():
    monai = layer((3, 3, 3), 300.0).float()
    x = torch.randn(1, 8, 7, 8, 10, requires_grad=True)
    out = SwinStage(copy.deepcopy(monai), "blocks")(x)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(x.grad).all()
    torch.testing.assert_close(out, monai(x), rtol=1e-3, atol=1e-3)


def test_blocks_pass_gradcheck():
    torch.manual_seed(0)
    plan = window_plan(1, (3, 2, 3), (2, 2, 2), (1, 0, 1), CPU)
    assert any(kind.mask is not None for kind in plan.kinds) and any(len(k.keys) > len(k.inside) for k in plan.kinds)
    qkv, padding, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((18, 3, 2, 2), (2, 2, 2), (2, 8, 8)))

    def attend(qkv, padding, bias, safe):
        biases = [kind.key_bias(bias) for kind in plan.kinds]
        return blocks.BlockAttention.apply(qkv, padding, plan, 0.7, safe, *biases)

    inputs = [x.requires_grad_() for x in (qkv, padding, bias)]
    for safe in (True, False):
        assert torch.autograd.gradcheck(lambda *x, safe=safe: attend(*x, safe), inputs)
    torch.testing.assert_close(attend(*inputs, True), attend(*inputs, False))


def test_second_derivatives_equal_monai_or_are_an_error():
    """Of a whole stage, so that the merging's own backward pass is in it too."""
    monai = layer((3, 3, 3), downsample=PatchMerging)
    x, direction = (torch.randn(1, 8, 6, 6, 6, dtype=torch.float64) for _ in range(2))

    def product(stage):
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(stage(at).pow(3).sum(), at, create_graph=True)
        return torch.autograd.grad((gradient * direction).sum(), at)[0]

    torch.testing.assert_close(product(SwinStage(copy.deepcopy(monai), "plain")), product(monai), rtol=1e-9, atol=1e-9)
    with pytest.raises(RuntimeError, match="attention='plain'"):
        product(SwinStage(copy.deepcopy(monai), "blocks"))


class Merge(torch.nn.Module):
    def __init__(self, merging):
        super().__init__()
        self.merging = merging

    def forward(self, x):
        return merge(self.merging, x)


@pytest.mark.parametrize("merging", [PatchMerging, PatchMergingV2, LegacyPatchMerging])
@pytest.mark.parametrize("size", [(6, 8, 10), (6, 7, 10)])
def test_merging_equals_monai(merging, size):
    monai = merging(4).double()
    ours = copy.deepcopy(monai)
    x = torch.randn(2, *size, 4, dtype=torch.float64)
    check_equal(Merge(ours), monai, [(x,), (x,)])


@pytest.mark.parametrize(
    ("setting", "dtype", "dropout", "way"),
    [
        ("auto", torch.float32, 0.0, "blocks"),
        ("auto", torch.bfloat16, 0.0, "blocks"),
        ("auto", torch.float32, 0.1, "plain"),
        ("fused", torch.float32, 0.0, "fused"),
        ("plain", torch.float32, 0.0, "plain"),
    ],
)
def test_choice_of_the_way(setting, dtype, dropout, way):
    ours = EfficientWindowAttention(attention(attn_drop=dropout), setting)
    assert ours.backend(torch.zeros(1, dtype=dtype)) == way
    assert (ours.eval().backend(torch.zeros(1)) == "plain") == (setting == "plain")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (ours.backend(torch.zeros(1)) == "plain") == (setting == "plain")


@pytest.mark.parametrize("way", ["blocks", "plain", "fused"])
def test_half_precision_is_as_close_to_float64_as_monais(way):
    monai = layer((3, 3, 3), 2.0)
    x, upstream = (torch.randn(2, 8, 7, 8, 10) for _ in range(2))

    def results(stage, dtype, half):
        stage, at = copy.deepcopy(stage).to(dtype), x.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            out = stage(at)
        (out * upstream.to(out.dtype)).sum().backward()
        return [out, at.grad, *(p.grad for p in stage.parameters())]

    exact = results(monai, torch.float64, False)
    theirs, ours = results(monai, torch.float32, True), results(SwinStage(monai, way), torch.float32, True)
    for true, other, mine in zip(exact, theirs, ours, strict=True):
        assert (mine - true).norm() < max(2 * (other - true).norm(), 1e-3 * true.norm())


def test_a_whole_network_in_half_precision_runs():
    """Without autocast, as a user who has called ``network.bfloat16()``."""
    monai = layer((3, 3, 3))
    x = torch.randn(2, 8, 7, 8, 10)
    out = SwinStage(copy.deepcopy(monai), "blocks").bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - monai(x.double())).norm() < 0.05 * monai(x.double()).norm()
