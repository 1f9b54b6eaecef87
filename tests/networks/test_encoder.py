"""The encoder beside MONAI's SwinTransformer: keys, numbers and gradients in float64."""

import copy

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer

from swinfuse_components.networks import LegacyPatchMerging, SwinFUSEEncoder

SETTINGS = {"depths": (2, 2, 2, 2), "num_heads": (3, 6, 12, 24)}


def pair(window, attention="auto", **kwargs):
    torch.manual_seed(0)
    monai = SwinTransformer(2, 12, (window,) * 3, (2, 2, 2), **SETTINGS, **kwargs).double()
    ours = SwinFUSEEncoder(2, 12, 32, window, dim="none", attention=attention, **SETTINGS, **kwargs).double()
    ours.load_state_dict(monai.state_dict())
    return ours, monai


# 16 voxels of embedding in windows of 4 (no padding) and 5 (padded), shifted in every second block.
@pytest.mark.parametrize(
    ("window", "attention", "options"),
    [(4, "auto", {}), (5, "auto", {"use_checkpoint": True}), (5, "fused", {"downsample": LegacyPatchMerging})],
)
def test_equals_monai_with_gradients(window, attention, options):
    ours, monai = pair(window, attention, **options)
    assert list(ours.state_dict()) == list(monai.state_dict())
    x = torch.rand(1, 2, 32, 32, 32, dtype=torch.float64)
    outputs = [net(x) for net in (ours, monai)]
    for mine, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    for features in outputs:
        sum(f.pow(3).mean() for f in features).backward()
    for (name, mine), other in zip(ours.named_parameters(), monai.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_dropout_of_paths_and_weights_follows_the_same_random_numbers():
    ours, monai = pair(4, drop_path_rate=0.3, attn_drop_rate=0.2, drop_rate=0.1)
    x = torch.rand(1, 2, 32, 32, 32, dtype=torch.float64)
    outputs = []
    for net in (ours, monai):
        torch.manual_seed(1)
        outputs.append(net(x)[-1])
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)


def test_compiles_and_copies():
    ours, _ = pair(4)
    ours = ours.float()
    x = torch.rand(1, 2, 32, 32, 32)
    with torch.no_grad():
        expected = ours(x)[-1]
        torch.testing.assert_close(copy.deepcopy(ours)(x)[-1], expected)
        compiled = torch.compile(ours.layers4[0], backend="eager")
        features = ours.encode(ours.embed(x), normalize=False)
        torch.testing.assert_close(compiled(features[3]), features[4], rtol=1e-4, atol=1e-5)


def test_errors_name_what_was_found_and_expected():
    with pytest.raises(ValueError, match=r"roi_size: found \(40, 40, 40\), expected positive multiples of 32"):
        SwinFUSEEncoder(1, 12, 40)
    with pytest.raises(ValueError, match=r"image of shape \(1, 1, 32, 32, 32\) found, \(B, 2, D, H, W\) expected"):
        pair(4)[0](torch.zeros(1, 1, 32, 32, 32))
