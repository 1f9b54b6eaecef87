"""The pre-training network: what comes out, in which order, for both modes and all variants."""

import pytest
import torch

from swinfuse_components.networks import SwinFUSEPretrainer

ROI = (64, 32, 32)
VARIANTS = [
    ("swinfuse", {}),
    ("swinfuse", {"tokens": "windows"}),
    ("paper", {}),
    ("released", {"num_heads": 4}),
    ("none", {}),
]


def pretrainer(dim="swinfuse", dim_options=None, **kwargs):
    torch.manual_seed(0)
    return SwinFUSEPretrainer(
        roi_size=ROI, feature_size=12, window_size=4, dim=dim, dim_options=dim_options, contrastive_size=16, **kwargs
    )


def views(batch=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(batch, 1, *ROI, generator=generator, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize(("dim", "options"), VARIANTS)
@pytest.mark.parametrize("mode", ["cross", "self"])
def test_outputs_and_gradients(dim, options, mode):
    net = pretrainer(dim, options, mode=mode)
    out = net(*views(batch=2))
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "reconstruction": (4, 1, *ROI),
        "rotation": (4, 4),
        "contrastive": (4, 16),
        "stream_i": (2, 12, 32, 16, 16),
        "stream_j": (2, 12, 32, 16, 16),
    }
    sum(value.square().mean() for value in out.values()).backward()
    without = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("mode", ["cross", "self"])
def test_view_i_comes_first_and_the_streams_are_what_is_encoded(mode):
    net = pretrainer(mode=mode).double().eval()
    view_i, view_j = views(dtype=torch.float64)
    out = net(view_i, view_j)
    for number, name in enumerate(("stream_i", "stream_j")):
        features = net.swinViT.encode(out[name])[-1]
        for key, head in (("reconstruction", net.decoder), ("rotation", net.rotation_head)):
            torch.testing.assert_close(out[key][number : number + 1], head(features), rtol=1e-9, atol=1e-9)
    back = net(view_j, view_i)
    torch.testing.assert_close(back["contrastive"], out["contrastive"].flip(0), rtol=1e-9, atol=1e-9)


def test_self_mode_does_not_mix_the_views_and_cross_mode_does():
    view_i, view_j = views(dtype=torch.float64)
    for mode, mixes in (("self", False), ("cross", True)):
        net = pretrainer("paper", mode=mode).double().eval()
        other = net(view_i, torch.zeros_like(view_j))
        assert torch.allclose(net(view_i, view_j)["stream_i"], other["stream_i"], rtol=0, atol=1e-12) != mixes


def test_one_view_gives_its_reconstruction_as_self_mode_does():
    net = pretrainer(mode="self").double().eval()
    view_i, view_j = views(dtype=torch.float64)
    alone = net(view_i)
    torch.testing.assert_close(alone, net(view_i, view_j)["reconstruction"][:1], rtol=1e-9, atol=1e-9)
    # Cross mode with two equal views and one shared Psi is the same thing.
    net.mode = "cross"
    torch.testing.assert_close(alone, net(view_i, view_i)["reconstruction"][:1], rtol=1e-9, atol=1e-9)


def test_checkpointing_gives_the_same_loss_and_gradients():
    plain = pretrainer().double()
    recomputing = pretrainer(use_checkpoint=True, dim_options={"use_checkpoint": True}).double()
    recomputing.load_state_dict(plain.state_dict())
    for net in (plain, recomputing):
        sum(value.square().mean() for value in net(*views(dtype=torch.float64)).values()).backward()
    for (name, ours), theirs in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_scripts_with_one_view():
    net = pretrainer().eval()
    _, view = views()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(net)(view), net(view))


def test_small_regions_work_with_another_normalisation():
    net = SwinFUSEPretrainer(roi_size=32, feature_size=12, window_size=4, norm_name=("group", {"num_groups": 4}))
    assert net(torch.rand(1, 1, 32, 32, 32)).shape == (1, 1, 32, 32, 32)
    with pytest.raises(ValueError, match=r"roi_size: found \(32, 32, 32\), expected 64 or more on one axis"):
        SwinFUSEPretrainer(roi_size=32, feature_size=12)


def test_errors_name_what_was_found_and_expected():
    net = pretrainer()
    with pytest.raises(ValueError, match=r"\(32, 32, 32\) found, roi_size \(64, 32, 32\) expected"):
        net(torch.zeros(1, 1, 32, 32, 32))
    with pytest.raises(ValueError, match=r"\(1, 2, 64, 32, 32\) found, \(B, 1, D, H, W\) expected"):
        net(torch.zeros(1, 2, *ROI))
    with pytest.raises(ValueError, match=r"roi_size: found \(50, 50, 50\), expected positive multiples of 32"):
        SwinFUSEPretrainer(roi_size=50, feature_size=12)
    with pytest.raises(ValueError, match="feature_size: found 16, expected a multiple of 12"):
        SwinFUSEPretrainer(feature_size=16)
    with pytest.raises(ValueError, match="mode: found 'both'"):
        SwinFUSEPretrainer(roi_size=64, feature_size=12, mode="both")
