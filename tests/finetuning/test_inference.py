import copy

import pytest
import torch
from ignite.engine import Engine
from monai.inferers import SimpleInferer

from swinfuse_components.finetuning import FlipAveragingInferer, PrecisionInferer, dice_of_regions
from swinfuse_components.finetuning.precision import arithmetic


def test_flips_are_undone_before_they_are_averaged() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4, 5, 6)
    # a network that knows where it looks: it adds a ramp along each axis
    ramp = torch.arange(4.0).view(-1, 1, 1) + 10 * torch.arange(5.0).view(-1, 1) + 100 * torch.arange(6.0)
    averaged = FlipAveragingInferer(SimpleInferer(), axes=[0, 2])(image, lambda x: x + ramp)
    mean = 1.5 + 10 * torch.arange(5.0).view(-1, 1) + 250  # ramps along the mirrored axes average out
    torch.testing.assert_close(averaged, image + mean, rtol=1e-5, atol=1e-4)


def test_without_axes_the_inferer_answers_alone() -> None:
    image = torch.rand(1, 1, 3, 3, 3)
    calls = []
    result = FlipAveragingInferer(SimpleInferer())(image, lambda x: calls.append(1) or x * 2)
    assert torch.equal(result, image * 2) and len(calls) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_the_network_computes_in_the_precision_and_answers_in_float32(precision: str) -> None:
    torch.manual_seed(0)
    network, image, seen = torch.nn.Conv3d(2, 3, 3, padding=1), torch.rand(1, 2, 8, 8, 8), []
    network.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        logits = PrecisionInferer(SimpleInferer(), precision)(image, network)
        exact = network.double()(image.double())
    assert seen[0] == arithmetic(precision, "cpu") and logits.dtype == torch.float32
    tolerance = 1e-6 if seen[0] == torch.float32 else 2**-7  # bfloat16 has 8 significant bits
    torch.testing.assert_close(logits.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(2, 2, 2), (2, 5, 4), (1, 2, 2), (3, 3, 3)])
def test_weight_gradients_in_bfloat16_are_right_on_small_maps(size: tuple[int, int, int]) -> None:
    """PyTorch's own are wrong there, by what happens to stand in memory: so it is filled with NaN before."""
    torch.manual_seed(0)
    network, image = torch.nn.Conv3d(32, 16, 3, padding=1), torch.randn(4, 32, *size)
    exact = copy.deepcopy(network).double()
    exact(image.double()).square().sum().backward()
    poison = [torch.full((1000 * number,), torch.nan) for number in range(1, 100)]
    answer = PrecisionInferer(SimpleInferer(), "bfloat16")(image, lambda x: {"maps": (network(x),)})
    assert answer["maps"][0].dtype == torch.float32
    del poison
    answer["maps"][0].square().sum().backward()
    for ours, true in zip(network.parameters(), exact.parameters(), strict=True):
        assert (ours.grad - true.grad).norm() < 0.01 * true.grad.norm()


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(ValueError, match="backend is 'tensorrt': expected one of torch, openvino"):
        PrecisionInferer(SimpleInferer(), backend="tensorrt")


@pytest.mark.parametrize("precision", ["bf16", "float16"])
def test_a_precision_that_the_device_lacks_is_an_error(precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision is '{precision}': expected auto or"):
        arithmetic(precision, "cpu")


def test_each_region_has_its_dice_under_its_name() -> None:
    first, second = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    first[0, :2], second[0, :2] = 1, 1  # equal
    first[1, :2], second[1, 1:3] = 1, 1  # half of it
    engine = Engine(lambda *_: [{"pred": first, "label": second}])
    for name, metric in dice_of_regions(["liver", "GTV (primary)"]).items():
        metric.attach(engine, name)
    assert engine.run([0]).metrics == pytest.approx({"val_dice_liver": 1.0, "val_dice_GTV _primary_": 0.5})
