"""The domain invariance module behind the first stage of MONAI's convolutional networks."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet

from swinfuse_components.networks import (
    DomainInvarianceModule,
    DomainInvarianceOutput,
    insert_domain_invariance,
)


def networks():
    return {
        "convInit": SegResNet(init_filters=8, in_channels=1, out_channels=2, blocks_down=(1, 1), blocks_up=(1,)),
        "input_block": DynUNet(
            3, 1, 2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 32]
        ),
    }


@pytest.mark.parametrize("stem", ["convInit", "input_block"])
@pytest.mark.parametrize("tokens", ["windows", "planes"])
def test_behind_a_convolutional_backbone(stem, tokens):
    torch.manual_seed(0)
    net = networks()[stem].eval()
    x, y = torch.randn(2, 1, 1, 16, 16, 16)
    plain = net(x)
    module = DomainInvarianceModule(8, 16, tokens=tokens, num_heads=(2, 3))
    inserted = insert_domain_invariance(net, stem, module)
    assert net.get_submodule(stem) is inserted
    gated = net(x)
    assert gated.shape == plain.shape
    assert not torch.equal(gated, plain)
    # With a gate of exactly one the network is the plain one again.
    last = module.psi[0][-1].attention.out_proj
    torch.nn.init.zeros_(last.weight)
    torch.testing.assert_close(net(x), plain)
    # Two views: the module's terms of Eq. 1 on the stem's embeddings.
    out = inserted(x, y)
    assert isinstance(out, DomainInvarianceOutput)
    torch.testing.assert_close(out.stream_j, module(inserted.stem(x), inserted.stem(y)).stream_j)
    net(x).square().mean().backward()
    assert last.weight.grad.abs().sum() > 0
