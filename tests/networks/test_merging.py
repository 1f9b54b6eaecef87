"""Patch merging before and since MONAI 1.5."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.networks.nets.swin_unetr import PatchMerging

from swinfuse_components.networks import LegacyPatchMerging


def octants_that_matter(merging):
    """Which of the eight neighbours change the output when they alone are changed."""
    torch.manual_seed(0)
    x = torch.randn(1, 4, 4, 4, 3, dtype=torch.float64)
    before, found = merging(x), set()
    for i, j, k in itertools.product(range(2), repeat=3):
        changed = x.clone()
        changed[:, i::2, j::2, k::2] += 1
        if not torch.equal(merging(changed), before):
            found.add((i, j, k))
    return found


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
