"""Eq. 1 against a slow reference written from the paper, and the settings of the domain invariance module."""

import copy
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swinfuse_components.networks import DomainInvarianceModule, ReleasedDomainInvarianceModule, build_domain_invariance

PAPER = {"gate": "product", "shared": False, "residual": False, "normalize": False}
SIZE = (5, 4, 6)


def embeddings(channels=6, size=SIZE, batch=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, *size, generator=generator, dtype=dtype) for _ in range(2)]


def attention_reference(query, context, w, head_dim=16):
    """softmax(Q K^T / sqrt(16)) V, head by head, in plain einsum; also the attention weights of each head."""
    heads, maps = [], []
    for start in range(0, w["to_q.weight"].shape[0], head_dim):
        rows = slice(start, start + head_dim)
        q = torch.einsum("bnt,kt->bnk", query, w["to_q.weight"][rows])
        k = torch.einsum("bnt,kt->bnk", context, w["to_k.weight"][rows])
        v = torch.einsum("bnt,kt->bnk", context, w["to_v.weight"][rows])
        if "log_scale" in w:  # cosine of query and key, times the factor of this head
            q, k = (x / x.square().sum(-1, keepdim=True).sqrt() for x in (q, k))
            scores = torch.einsum("bnk,bmk->bnm", q, k) * min(float(w["log_scale"][start // head_dim].exp()), 100.0)
        else:
            scores = torch.einsum("bnk,bmk->bnm", q, k) / head_dim**0.5
        exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = exponentials / exponentials.sum(-1, keepdim=True)
        maps.append(weights)
        heads.append(torch.einsum("bnm,bmk->bnk", weights, v))
    out = torch.einsum("bnk,tk->bnt", torch.cat(heads, -1), w["out_proj.weight"]) + w["out_proj.bias"]
    return out, torch.stack(maps, 1)


def layer_norm_reference(x, w):
    if "norm.weight" not in w:
        return x
    mean = x.mean(-1, keepdim=True)
    spread = (((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return (x - mean) / spread * w["norm.weight"] + w["norm.bias"]


def split_planes(p):
    """One token per channel and depth, the plane of H x W voxels flattened."""
    b, c, d, _, _ = p.shape
    return torch.stack([p[:, i, k].reshape(b, -1) for i in range(c) for k in range(d)], dim=1)


def join_planes(x, shape):
    b, c, d, h, w = shape
    return torch.stack([torch.stack([x[:, i * d + k].reshape(b, h, w) for k in range(d)], 1) for i in range(c)], 1)


def split_patches(p, edge):
    """One token per cube of voxels: all its voxels' channels, voxel after voxel."""
    starts = list(itertools.product(*[range(0, size, edge) for size in p.shape[2:]]))
    cubes = [p[:, :, i : i + edge, j : j + edge, k : k + edge] for i, j, k in starts]
    return torch.stack([cube.permute(0, 2, 3, 4, 1).flatten(1) for cube in cubes], 1), starts


def join_patches(x, shape, edge):
    out = x.new_zeros(shape)
    _, starts = split_patches(out, edge)
    for number, (i, j, k) in enumerate(starts):
        cube = x[:, number].reshape(shape[0], edge, edge, edge, shape[1]).permute(0, 4, 1, 2, 3)
        out[:, :, i : i + edge, j : j + edge, k : k + edge] = cube
    return out


def psi_weights(module, stack, layer):
    start = f"psi.{stack}.{layer}."
    found = {key.removeprefix(start): value for key, value in module.state_dict().items() if key.startswith(start)}
    return {key.removeprefix("attention."): value for key, value in found.items()}


def eq1_reference(module, p_1, p_2, gate, shared, residual, edge=None):
    """P1 * Psi1(Q2, K1, V1) and P2 * Psi2(Q1, K2, V2), their mean, and the attention weights of each layer."""
    x_1, x_2 = (split_planes(p) if edge is None else split_patches(p, edge)[0] for p in (p_1, p_2))
    maps = []
    depth = len(module.psi[0])
    for layer in range(depth):
        w_1, w_2 = psi_weights(module, 0, layer), psi_weights(module, 0 if shared else 1, layer)
        y_1, map_1 = attention_reference(layer_norm_reference(x_2, w_1), layer_norm_reference(x_1, w_1), w_1)
        y_2, map_2 = attention_reference(layer_norm_reference(x_1, w_2), layer_norm_reference(x_2, w_2), w_2)
        if residual and layer < depth - 1:
            y_1, y_2 = y_1 + x_1, y_2 + x_2
        x_1, x_2 = y_1, y_2
        maps.append((map_1, map_2))
    psi_1, psi_2 = (join_planes(x, p_1.shape) if edge is None else join_patches(x, p_1.shape, edge) for x in (x_1, x_2))
    act = {"product": lambda psi: psi, "residual": lambda psi: 1 + psi, "sigmoid": lambda psi: 2 / (1 + (-psi).exp())}[
        gate
    ]
    s_1, s_2 = p_1 * act(psi_1), p_2 * act(psi_2)
    return (s_1 + s_2) / 2, s_1, s_2, maps


@pytest.mark.parametrize(
    "options",
    [
        PAPER,
        {"gate": "residual", "shared": False, "residual": False, "normalize": False},
        {"gate": "sigmoid", "shared": True, "residual": True, "normalize": True},
        {"gate": "sigmoid", "shared": False, "residual": True, "normalize": False},
        {"gate": "sigmoid", "shared": True, "residual": True, "normalize": True, "cosine": True},
        {"gate": "product", "shared": False, "residual": False, "normalize": False, "cosine": True},
        {"gate": "sigmoid", "shared": True, "residual": True, "cosine": True, "tokens": "patches", "window_size": 2},
    ],
)
def test_equals_eq1(options):
    torch.manual_seed(0)
    size = (4, 2, 6) if "tokens" in options else SIZE
    module = DomainInvarianceModule(6, size, **options).double()
    for name, parameter in module.named_parameters():  # far from any special start
        torch.nn.init.normal_(parameter, std=2.0 if "log_scale" in name else 0.2)
    p_1, p_2 = embeddings(size=size)
    fused, stream_1, stream_2, maps = eq1_reference(
        module, p_1, p_2, options["gate"], options["shared"], options["residual"], options.get("window_size")
    )
    out = module(p_1, p_2)
    for ours, theirs in zip(out, (fused, stream_1, stream_2), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for (map_i, map_j), (map_1, map_2) in zip(module.attention_maps(p_1, p_2), maps, strict=True):
        torch.testing.assert_close(map_i, map_1, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(map_j, map_2, rtol=1e-10, atol=1e-10)


def test_paper_variant_has_the_papers_depth_heads_and_widths():
    module = build_domain_invariance("paper", 48, 48)
    for stack in module.psi:
        assert [layer.attention.num_heads for layer in stack] == [3, 6, 12, 24]
        assert [layer.attention.to_q.out_features for layer in stack] == [48, 96, 192, 384]
        assert {layer.attention.to_q.in_features for layer in stack} == {2304}
    assert (module.gate, module.shared, module.residual) == ("product", False, False)


@pytest.mark.parametrize(("variant", "millions"), [("paper", 13.3), ("released", 42.5)])
def test_parameter_counts_at_96_cubed(variant, millions):
    with torch.device("meta"):
        module = build_domain_invariance(variant, 48, 48)
    assert round(sum(p.numel() for p in module.parameters()) / 1e6, 1) == millions


def test_released_equals_multihead_attention_over_the_batch_axis():
    torch.manual_seed(0)
    module = ReleasedDomainInvarianceModule(4, (6, 4, 6), num_heads=3).double()
    p, _ = embeddings(channels=4, size=(6, 4, 6), batch=1)
    view = p.reshape(1, 24, 24)
    expected = (module.mh1(view, view, view)[0] + module.mh2(view, view, view)[0]) / 2
    out = module(p, p)
    torch.testing.assert_close(out.fused, expected.reshape(p.shape), rtol=1e-10, atol=1e-10)
    # Batch size 1: the softmax has one key, so queries and keys get no gradient, and the output is linear in the input.
    out.fused.square().sum().backward()
    for attention in (module.mh1, module.mh2):
        query_key, value = attention.in_proj_weight.grad[: 2 * 24], attention.in_proj_weight.grad[2 * 24 :]
        assert torch.count_nonzero(query_key) == 0
        assert torch.count_nonzero(value) > 0
    zero = module(torch.zeros_like(p), torch.zeros_like(p)).fused
    torch.testing.assert_close(module(2 * p, 2 * p).fused - zero, 2 * (out.fused - zero), rtol=1e-10, atol=1e-10)


def test_released_mixes_the_samples_of_a_batch():
    torch.manual_seed(0)
    module = ReleasedDomainInvarianceModule(4, (6, 4, 6)).double()
    p, other = embeddings(channels=4, size=(6, 4, 6), batch=2)
    other[0] = p[0]
    assert not torch.allclose(module(p, p).fused[0], module(other, other).fused[0])
    ours = DomainInvarianceModule(4, (6, 4, 6)).double()
    torch.testing.assert_close(ours(p, p).fused[0], ours(other, other).fused[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", ["planes", "windows", "patches"])
@pytest.mark.parametrize("gate", ["product", "sigmoid"])
def test_swapping_the_views_swaps_the_streams_with_one_shared_psi(tokens, gate):
    torch.manual_seed(0)
    module = DomainInvarianceModule(6, 4, tokens=tokens, gate=gate, window_size=2).double()
    p_i, p_j = embeddings(size=(4, 4, 4))
    there, back = module(p_i, p_j), module(p_j, p_i)
    assert torch.equal(there.stream_i, back.stream_j)
    assert torch.equal(there.stream_j, back.stream_i)
    assert torch.equal(there.fused, back.fused)


def test_swapping_the_views_and_both_psi_swaps_the_streams():
    torch.manual_seed(0)
    module = build_domain_invariance("paper", 6, SIZE).double()
    swapped = copy.deepcopy(module)
    swapped.psi = torch.nn.ModuleList(reversed(list(swapped.psi)))
    p_i, p_j = embeddings()
    there, back = module(p_i, p_j), swapped(p_j, p_i)
    assert torch.equal(there.stream_i, back.stream_j)
    assert torch.equal(there.stream_j, back.stream_i)
    assert not torch.allclose(there.stream_i, module(p_j, p_i).stream_j)


@pytest.mark.parametrize("gate", ["sigmoid", "residual"])
@pytest.mark.parametrize("tokens", ["planes", "windows"])
def test_starts_near_the_identity(gate, tokens):
    torch.manual_seed(0)
    module = DomainInvarianceModule(12, 16, gate=gate, tokens=tokens)
    p_i, p_j = embeddings(channels=12, size=(16, 16, 16), dtype=torch.float32)
    out = module(p_i, p_j)
    assert (out.stream_i - p_i).norm() < 0.1 * p_i.norm()
    assert not torch.equal(out.stream_i, p_i)
    literal = build_domain_invariance("paper", 12, 16)(p_i, p_j)
    assert literal.stream_i.norm() < 0.2 * p_i.norm()


def test_window_tokens_attend_inside_windows_and_serve_any_region():
    torch.manual_seed(0)
    module = DomainInvarianceModule(6, tokens="windows", window_size=2).double()
    p_i, p_j = embeddings(size=(4, 4, 4))
    whole = module(p_i, p_j).stream_i
    corner = module(p_i[..., :2, 2:, :2].contiguous(), p_j[..., :2, 2:, :2].contiguous()).stream_i
    torch.testing.assert_close(whole[..., :2, 2:, :2], corner, rtol=1e-12, atol=1e-12)
    assert module.attention_maps(p_i, p_j)[0][0].shape == (2 * 8, 3, 8, 8)
    assert module(*embeddings(size=(2, 8, 6)))[0].shape == (2, 6, 2, 8, 6)


def test_a_module_of_cosines_depends_on_its_partner():
    torch.manual_seed(0)
    p, others = embeddings(channels=12, size=(16, 16, 16), dtype=torch.float32)

    def influence(**options):
        module = DomainInvarianceModule(12, 16, gate="product", **options)
        first, second = (module(p, partner).stream_i for partner in (others, others.roll(1, 0)))
        return float((first - second).norm() / first.norm())

    assert influence(cosine=True) > 3 * influence()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation gave."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, torch.Tensor):
                self.largest = max(self.largest, item.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_holds_the_attention_matrix_unless_asked(dtype):
    module = DomainInvarianceModule(12, (32, 4, 4)).to(dtype)
    p_i, p_j = embeddings(channels=12, size=(32, 4, 4), batch=1, dtype=torch.float32)
    p_i, p_j = p_i.to(dtype).requires_grad_(), p_j.to(dtype)
    tokens = 12 * 32
    with LargestTensor() as seen:
        sum(out.sum() for out in module(p_i, p_j)).backward()
    # The widest thing in sight is the projection of all tokens to 24 heads of 16.
    assert seen.largest <= tokens * 24 * 16
    assert p_i.grad is not None
    with LargestTensor() as asked:
        module.attention_maps(p_i, p_j)
    assert asked.largest >= 24 * tokens**2


@pytest.mark.parametrize("tokens", ["planes", "windows"])
def test_checkpointing_gives_the_same_gradients(tokens):
    torch.manual_seed(0)
    module = DomainInvarianceModule(6, 4, tokens=tokens, window_size=2).double()
    recomputing = copy.deepcopy(module)
    recomputing.use_checkpoint = True
    for net in (module, recomputing):
        out = net(*embeddings(size=(4, 4, 4)))
        (out.stream_i.square().sum() + out.fused.sum()).backward()
    for ours, theirs in zip(module.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["swinfuse", "paper"])
def test_autocast_compile_state_dict_and_deepcopy(variant):
    torch.manual_seed(0)
    module = build_domain_invariance(variant, 6, SIZE)
    p_i, p_j = embeddings(dtype=torch.float32)
    expected = module(p_i, p_j)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(p_i, p_j)
    assert torch.isfinite(half.fused).all()
    assert (half.fused - expected.fused).norm() < 0.03 * expected.fused.norm()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)(p_i, p_j)
    fresh = build_domain_invariance(variant, 6, SIZE)
    fresh.load_state_dict(module.state_dict())
    for other in (compiled, fresh(p_i, p_j), copy.deepcopy(module)(p_i, p_j)):
        for ours, theirs in zip(other, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


GOOD = torch.zeros(1, 6, 4, 4, 4)
MISTAKES = [
    (lambda: DomainInvarianceModule(6, 4)(*[torch.zeros(1, 6, 4, 4, 8)] * 2), r"4, 8\) found, \(4, 4, 4\) expected"),
    (lambda: DomainInvarianceModule(6, 4)(GOOD, GOOD[:, :5]), r"p_j: found shape \(1, 5, 4, .* \(B, 6, D, H, W\)"),
    (lambda: DomainInvarianceModule(6, 4)(GOOD, GOOD.repeat(2, 1, 1, 1, 1)), "differ in shape"),
    (lambda: DomainInvarianceModule(6, tokens="windows", window_size=3)(GOOD, GOOD), r"of the window \(3, 3, 3\)"),
    (lambda: DomainInvarianceModule(6), "embedding_size: found None"),
    (lambda: DomainInvarianceModule(6, 4, gate="none"), "gate: found 'none'"),
    (lambda: DomainInvarianceModule(6, 4, tokens="voxels"), "tokens: found 'voxels'"),
    (lambda: DomainInvarianceModule(6, 4, num_heads=()), "num_heads: found none"),
    (lambda: ReleasedDomainInvarianceModule(6, 4), r"found 3, expected a divisor of the token dimension H \* W = 16"),
    (lambda: ReleasedDomainInvarianceModule(5, 4, num_heads=2)(GOOD, GOOD), r"expected \(B, 5, 4, 4, 4\)"),
    (lambda: build_domain_invariance("swin", 6, 4), "dim: found 'swin'"),
    (lambda: build_domain_invariance("none", 6, 4, {"gate": "product"}), "dim_options: found"),
]


@pytest.mark.parametrize(("make", "message"), MISTAKES)
def test_errors_name_what_was_found_and_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
