"""Patch merging before and since MONAI 1.5."""

import pytest
import torch
from monai.networks.nets.swin_unetr import PatchMerging

from swinfuse_components.networks import LegacyPatchMerging


def test_legacy_merging_equals_the_old_formula():
    # Written out for one output voxel: x0 .. x7 as MONAI 1.4 joined them.
    torch.manual_seed(0)
    merging = LegacyPatchMerging(2).double()
    torch.nn.init.normal_(merging.norm.weight)
    x = torch.randn(1, 2, 2, 2, 2, dtype=torch.float64)
    order = ["000", "100", "010", "001", "101", "010", "001", "111"]
    joined = torch.cat([x[:, int(o[0]), int(o[1]), int(o[2])] for o in order], -1)
    expected = merging.reduction(merging.norm(joined))
    torch.testing.assert_close(merging(x)[:, 0, 0, 0], expected, rtol=1e-12, atol=1e-12)
    assert {k: v.shape for k, v in merging.state_dict().items()} == {
        k: v.shape for k, v in PatchMerging(2).state_dict().items()
    }


def test_odd_sizes_are_padded_and_flat_input_is_refused():
    assert LegacyPatchMerging(2)(torch.zeros(1, 3, 4, 5, 2)).shape == (1, 2, 2, 3, 4)
    with pytest.raises(ValueError, match=r"found shape \(1, 4, 4, 2\)"):
        LegacyPatchMerging(2)(torch.zeros(1, 4, 4, 2))
