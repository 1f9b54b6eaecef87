"""The heads of the pretext tasks."""

import copy

import torch

from swinfuse_components.networks import InpaintingDecoder, PooledHead


def test_pooled_heads_read_the_mean_of_the_volume():
    torch.manual_seed(0)
    features = torch.randn(3, 32, 2, 3, 4, dtype=torch.float64)
    head = PooledHead(32, 7).double()
    expected = features.mean(dim=(2, 3, 4)) @ head[-1].weight.T + head[-1].bias
    torch.testing.assert_close(head(features), expected, rtol=1e-12, atol=1e-12)


def test_decoder_equals_the_published_order_with_the_last_convolution_after_the_upsampling():
    torch.manual_seed(0)
    decoder = InpaintingDecoder(32, 2).double()
    published = copy.deepcopy(decoder)

    def forward(x):
        for block in published.blocks:
            x = torch.nn.functional.interpolate(block(x), scale_factor=2, mode="trilinear", align_corners=False)
        return published.out(x)

    features = torch.randn(1, 32, 2, 1, 1, dtype=torch.float64)
    ours, theirs = decoder(features), forward(features)
    assert ours.shape == (1, 2, 64, 32, 32)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    # Instance normalisation cancels the bias of the convolutions before it: those gradients are rounding, left out.
    weights = ["out.weight", "out.bias", *(f"blocks.{k}.0.weight" for k in range(5))]
    ours.pow(3).mean().backward()
    theirs.pow(3).mean().backward()
    for name in weights:
        torch.testing.assert_close(
            decoder.get_parameter(name).grad, published.get_parameter(name).grad, rtol=1e-9, atol=1e-12
        )
