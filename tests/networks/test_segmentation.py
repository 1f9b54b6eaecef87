"""SwinFUSE beside MONAI's SwinUNETR."""

import copy

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SwinUNETR

from swinfuse_components.networks import SwinFUSE, SwinFUSEPretrainer

ROI = (64, 32, 32)
SMALL = {"feature_size": 12, "window_size": 4}


def swinfuse(in_channels=1, out_channels=2, **kwargs):
    torch.manual_seed(0)
    return SwinFUSE(in_channels, out_channels, roi_size=ROI, **{**SMALL, **kwargs})


def image(channels=1, dtype=torch.float64):
    return torch.rand(1, channels, *ROI, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_v2": True, "downsample": "mergingv2"},
        {"use_checkpoint": True, "norm_name": "batch", "normalize": False},
    ],
)
def test_without_the_module_it_is_swin_unetr_in_names_and_numbers(options):
    """Float64 and gradients: the encoder's test; the decoder is MONAI's own."""
    torch.manual_seed(0)
    monai = SwinUNETR(2, 3, **SMALL, **options)
    ours = swinfuse(2, 3, dim="none", **options)
    assert list(ours.state_dict()) == list(monai.state_dict())
    for key, value in monai.state_dict().items():  # one seed, one network
        assert torch.equal(ours.state_dict()[key], value), key
    with torch.no_grad():
        x = image(2, dtype=torch.float32)
        torch.testing.assert_close(ours(x), monai(x), rtol=1e-4, atol=1e-5)


def test_with_the_module_only_its_keys_are_added():
    monai = SwinUNETR(1, 2, **SMALL)
    ours = swinfuse()
    added = set(ours.state_dict()) - set(monai.state_dict())
    assert set(monai.state_dict()) <= set(ours.state_dict())
    assert added
    assert all(key.startswith("swinViT.domain_invariance.") for key in added)
    pretrained = {key for key in SwinFUSEPretrainer(roi_size=ROI, **SMALL).state_dict() if key.startswith("swinViT.")}
    assert pretrained == {key for key in ours.state_dict() if key.startswith("swinViT.")}


def test_one_input_is_encoded_by_the_average_of_eq_1():
    ours = swinfuse(dim="paper").double()
    plain = swinfuse(dim="none").double()
    plain.load_state_dict(ours.state_dict(), strict=False)
    x = image()
    encoder = ours.swinViT
    p = encoder.embed(x)
    fused = encoder.domain_invariance(p, p.clone()).fused
    for got, expected in zip(encoder(x), encoder.encode(fused), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours(x), plain(x))


@pytest.mark.parametrize(("dim", "options"), [("swinfuse", {}), ("paper", {}), ("released", {"num_heads": 4})])
def test_trains_copies_and_loads(dim, options):
    net = swinfuse(dim=dim, dim_options=options)
    x = image(dtype=torch.float32)
    logits = net(x)
    assert logits.shape == (1, 2, *ROI)
    logits.square().mean().backward()
    unused = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert unused == set()
    fresh = swinfuse(dim=dim, dim_options=options)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), logits)
    assert torch.equal(copy.deepcopy(net)(x), logits)


def test_sliding_windows_are_exactly_the_region():
    net = swinfuse().eval()
    shapes = []
    net.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape[2:])))
    inferer = SlidingWindowInferer(roi_size=ROI, sw_batch_size=2, overlap=0.25)
    with torch.no_grad():
        for size in ((70, 40, 32), (40, 20, 25)):  # larger than the region, and smaller
            assert inferer(torch.rand(1, 1, *size), net).shape == (1, 2, *size)
    assert set(shapes) == {ROI}


def test_window_tokens_serve_another_region_than_they_were_built_for():
    net = swinfuse(dim_options={"tokens": "windows"}).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 1, 32, 64, 32)).shape == (1, 2, 32, 64, 32)


def test_scripts_as_its_trace():
    net = swinfuse().eval()
    x = image(dtype=torch.float32)
    with torch.no_grad():
        scripted = torch.jit.script(net)
        torch.testing.assert_close(scripted(x * 0.5), net(x * 0.5))


def test_errors_name_what_was_found_and_expected():
    net = swinfuse()
    with pytest.raises(ValueError, match=r"image of size \(64, 64, 32\) found, roi_size \(64, 32, 32\) expected"):
        net(torch.zeros(1, 1, 64, 64, 32))
    with pytest.raises(ValueError, match=r"image of shape \(1, 4, 64, 32, 32\) found, \(B, 1, D, H, W\) expected"):
        net(torch.zeros(1, 4, *ROI))
    with pytest.raises(ValueError, match=r"must be divisible by 2\*\*5"):
        swinfuse(dim="none")(torch.zeros(1, 1, 64, 40, 32))
    with pytest.raises(ValueError, match="spatial_dims: found 2, expected 3"):
        SwinFUSE(1, 2, spatial_dims=2)


def test_a_region_on_which_instance_normalisation_fails_is_refused():
    with pytest.raises(ValueError, match="roi_size.*64 or more"):
        SwinFUSE(1, 2, roi_size=32, **SMALL)
    SwinFUSE(1, 2, roi_size=32, norm_name="batch", **SMALL)
