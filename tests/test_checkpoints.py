"""Weights of every known source go where they belong, or nowhere with an error that names them."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import SwinTransformer, filter_swinunetr
from monai.networks.utils import copy_model_state
from torch import Tensor, nn

from swinfuse_components.checkpoints import CheckpointError, LoadReport, load_pretrained
from swinfuse_components.networks import SwinFUSE, SwinFUSEEncoder, SwinFUSEPretrainer

State = dict[str, Tensor]
# plane tokens of 16 x 16
SMALL: dict = {"feature_size": 12, "roi_size": (64, 32, 32)}
RELEASED: dict = {"dim": "released", "dim_options": {"num_heads": 4}}


def encoder_keys(stage_prefix: str, mlp: tuple[str, str], feature_size: int = 12, channels: int = 1) -> State:
    """Random weights of MONAI's Swin encoder of window 7, under a source's own names.

    ``stage_prefix`` holds ``{}`` for the number of the stage; the patch embedding stands where the stages stand.
    """
    generator = torch.Generator().manual_seed(0)
    encoder = SwinTransformer(channels, feature_size, (7, 7, 7), (2, 2, 2), (2,) * 4, (3, 6, 12, 24))
    state: State = {}
    for name, value in encoder.state_dict().items():
        stage, _, rest = name.partition(".0.") if name.startswith("layers") else ("", "", name)
        prefix = stage_prefix.format(stage[-1:]) if stage else stage_prefix.partition("layers")[0]
        rest = rest.replace("mlp.linear1", f"mlp.{mlp[0]}").replace("mlp.linear2", f"mlp.{mlp[1]}")
        drawn = torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        state[prefix + rest] = drawn
    return state


def swin_unetr_ssl(**options: int) -> dict:
    """model_swinvit.pt."""
    return {"state_dict": encoder_keys("module.layers{}.0.", ("fc1", "fc2"), **options)}


def monai_ssl(**options: int) -> dict:
    """ssl_pretrained_weights.pth."""
    state = encoder_keys("encoder.layers{}.0.0.", ("linear1", "linear2"), **options)
    width = 16 * options.get("feature_size", 12)
    state |= {"encoder.mask_token": torch.zeros(1, 1, 12), "encoder.norm.weight": torch.ones(width)}
    state |= {"encoder.norm.bias": torch.zeros(width), "out.conv.conv.weight": torch.zeros(1, 12, 1, 1, 1)}
    return {"model": state}


def authors(token_size: int = 256, **options: int) -> dict:
    """A checkpoint of the published pre-training under two processes."""
    state = encoder_keys("module.swinViT.layers{}.0.", ("linear1", "linear2"), **options)
    for attention in ("mh1", "mh2"):
        at = f"module.swinViT.{attention}."
        state |= {
            f"{at}in_proj_weight": torch.rand(3 * token_size, token_size),
            f"{at}in_proj_bias": torch.rand(3 * token_size),
            f"{at}out_proj.weight": torch.rand(token_size, token_size),
            f"{at}out_proj.bias": torch.rand(token_size),
        }
    width = 16 * options.get("feature_size", 12)
    state |= {"module.rotation_head.weight": torch.rand(4, width), "module.rotation_head.bias": torch.rand(4)}
    state |= {"module.contrastive_head.weight": torch.rand(512, width), "module.contrastive_head.bias": torch.rand(512)}
    widths = [width, width // 2, width // 4, width // 8, width // 16, width // 16]
    for block in range(5):
        state |= {
            f"module.conv.{4 * block}.weight": torch.rand(widths[block + 1], widths[block], 3, 3, 3),
            f"module.conv.{4 * block}.bias": torch.rand(widths[block + 1]),
        }
    state |= {"module.conv.20.weight": torch.rand(1, width // 16, 1, 1, 1), "module.conv.20.bias": torch.rand(1)}
    return {"global_step": 100, "state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 4e-4}]}}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[object], Path]:
    def to_file(content: object) -> Path:
        torch.save(content, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return to_file


def same_encoder(network: nn.Module, state: State, names: Callable[[str], str]) -> int:
    """Number of tensors of the Swin encoder that equal those of ``state``, whose name ``names`` tells."""
    own = network.state_dict()
    encoder = [key for key in own if key.startswith("swinViT.") and ".domain_invariance." not in key]
    return sum(torch.equal(own[key], state[names(key.removeprefix("swinViT."))]) for key in encoder)


NUMBER_OF_TENSORS = 2 + 4 * (2 * 14 + 3)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "SwinUNETR": lambda: SwinUNETR(1, 2, feature_size=12),
    "SwinFUSE": lambda: SwinFUSE(1, 2, **SMALL),
    "SwinFUSEPretrainer": lambda: SwinFUSEPretrainer(**SMALL),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("content", "left"), [(swin_unetr_ssl, 0), (monai_ssl, 4)])
def test_self_supervised_weights_as_monai_itself_loads_them(
    content: Callable, left: int, name: str, write: Callable
) -> None:
    theirs, network = SwinUNETR(1, 2, feature_size=12), NETWORKS[name]()
    if content is monai_ssl:
        copy_model_state(theirs, content()["model"], filter_func=filter_swinunetr)
    else:
        theirs.load_from(content())
    report = load_pretrained(network, write(content()), part="swin")
    assert same_encoder(network, theirs.state_dict(), lambda key: "swinViT." + key) == NUMBER_OF_TENSORS
    assert len(report.loaded) == NUMBER_OF_TENSORS and len(report.left) == left and not report.unfilled


@pytest.mark.parametrize("network_class", [SwinFUSE, SwinFUSEPretrainer])
def test_checkpoint_of_the_authors_code(network_class: type, write: Callable) -> None:
    content = authors()
    options = SMALL | RELEASED | ({"in_channels": 1, "out_channels": 2} if network_class is SwinFUSE else {})
    network = network_class(**options)
    report = load_pretrained(network, write(content))
    state = content["state_dict"]
    assert same_encoder(network, state, lambda key: "module.swinViT." + key) == NUMBER_OF_TENSORS
    module = network.swinViT.domain_invariance.state_dict()
    assert torch.equal(module["mh1.in_proj_weight"], state["module.swinViT.mh1.in_proj_weight"])
    assert torch.equal(module["mh2.out_proj.bias"], state["module.swinViT.mh2.out_proj.bias"])
    assert "authors" in report.source and any("dim='released'" in note for note in report.notes)
    assert len(report.left) == 16 and all(key.startswith("module.") for key in report.left)


def test_pre_training_of_the_authors_is_continued_with_its_heads(write: Callable) -> None:
    content = authors()
    network = SwinFUSEPretrainer(**SMALL, **RELEASED, downsample="legacy")
    report = load_pretrained(network, write(content), part="all")
    state = content["state_dict"]
    own = network.state_dict()
    assert torch.equal(own["rotation_head.2.weight"], state["module.rotation_head.weight"])
    assert torch.equal(own["contrastive_head.2.bias"], state["module.contrastive_head.bias"])
    for block in range(5):
        assert torch.equal(own[f"decoder.blocks.{block}.0.weight"], state[f"module.conv.{4 * block}.weight"])
    assert torch.equal(own["decoder.out.weight"], state["module.conv.20.weight"])
    assert not report.left and not report.warnings


def test_own_pre_training_to_segmentation_and_back_to_pre_training(write: Callable) -> None:
    pretrainer = SwinFUSEPretrainer(**SMALL)
    path = write({"model": pretrainer.state_dict(), "optimizer": {}, "trainer": {"iteration": 7}})
    network = SwinFUSE(1, 3, **SMALL)
    decoder = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("swinViT.")}
    report = load_pretrained(network, path)
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(network.eval().swinViT(x), pretrainer.eval().swinViT(x), strict=True):
            assert torch.equal(ours, theirs)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in decoder.items())
    assert {key.split(".")[0] for key in report.left} == {"rotation_head", "contrastive_head", "decoder"}

    continued = SwinFUSEPretrainer(**SMALL)
    assert not load_pretrained(continued, path, part="all").left
    for key, value in pretrainer.state_dict().items():
        assert torch.equal(continued.state_dict()[key], value), key


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_swin_unetr_segmentation_network(wrapper: str | None, write: Callable) -> None:
    source = SwinUNETR(1, 5, feature_size=12)
    state = {"module." + key: value for key, value in source.state_dict().items()}
    network = SwinFUSE(1, 3, **SMALL, dim="none")
    report = load_pretrained(network, write({wrapper: state, "epoch": 3, "best_acc": 0.5} if wrapper else state))
    assert same_encoder(network, source.state_dict(), lambda key: "swinViT." + key) == NUMBER_OF_TENSORS
    assert "segmentation" in report.source
    assert any(key.startswith("module.decoder1.") for key in report.left)
    whole = SwinUNETR(1, 5, feature_size=12)
    load_pretrained(whole, write(state), part="all")
    assert all(torch.equal(whole.state_dict()[key], value) for key, value in source.state_dict().items())


def test_bare_encoder_and_older_prefix(write: Callable) -> None:
    encoder = SwinFUSEEncoder(1, 12, (64, 32, 32))
    for prefix in ("", "swin_vit.", "module.swin_vit.", "_orig_mod.module.swinViT."):
        path = write({prefix + key: value for key, value in encoder.state_dict().items()})
        network = SwinFUSE(1, 2, **SMALL)
        assert not load_pretrained(network, path).unfilled
        assert all(torch.equal(network.swinViT.state_dict()[k], v) for k, v in encoder.state_dict().items())


def test_wrapped_network_is_the_network(write: Callable) -> None:
    source, target = SwinFUSEPretrainer(**SMALL), SwinFUSEPretrainer(**SMALL)
    wrapped = torch.compile(nn.DataParallel(target))
    assert isinstance(wrapped, nn.Module)
    load_pretrained(wrapped, write({"model": source.state_dict()}), part="all")
    assert all(torch.equal(target.state_dict()[key], value) for key, value in source.state_dict().items())


# Input channels.


def test_four_equal_channels_give_the_embedding_of_one(write: Callable) -> None:
    pretrainer = SwinFUSEPretrainer(**SMALL)
    path = write({"model": pretrainer.state_dict()})
    network = SwinFUSE(4, 3, **SMALL)
    report = load_pretrained(network, path)
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.swinViT.embed(x.expand(-1, 4, -1, -1, -1)), pretrainer.swinViT.embed(x))
        deepest = network.swinViT(x.expand(-1, 4, -1, -1, -1))[-1], pretrainer.swinViT(x)[-1]
    torch.testing.assert_close(*deepest, atol=1e-4, rtol=1e-4)
    assert report.adapted == ["swinViT.patch_embed.proj.weight"]


def test_one_channel_from_four(write: Callable) -> None:
    source, network = SwinFUSE(4, 3, **SMALL), SwinFUSE(1, 3, **SMALL)
    report = load_pretrained(network, write({"model": source.state_dict()}), part="all")
    x = torch.rand(1, 1, 64, 32, 32)
    with torch.no_grad():
        ours, theirs = network.eval()(x), source.eval()(x.expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    weights = source.swinViT.patch_embed.proj.weight
    torch.testing.assert_close(network.swinViT.patch_embed.proj.weight, 4 * weights.mean(1, keepdim=True))
    assert len(report.adapted) == 3, "patch embedding and the two convolutions of the full-resolution skip"


def test_channels_without_a_plain_meaning_are_refused(write: Callable) -> None:
    path = write({"model": SwinFUSE(4, 3, **SMALL).state_dict()})
    with pytest.raises(CheckpointError, match=r"patch_embed\.proj\.weight: file \(12, 4, 2, 2, 2\), network \(12, 2"):
        load_pretrained(SwinFUSE(2, 3, **SMALL), path)


# What does not fit.


def refused(network: nn.Module, path: Path, message: str, **options: Any) -> CheckpointError:
    """Loading raises with this message and changes nothing."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(network, path, **options)
    assert str(path) in str(caught.value)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    return caught.value


def test_another_region_size(write: Callable) -> None:
    path = write({"model": SwinFUSEPretrainer(**SMALL).state_dict()})
    network = SwinFUSE(1, 3, feature_size=12, roi_size=96)
    message = r"256 \(planes of 16 x 16: a region of 32 voxels\).*2304 \(planes of 48 x 48: a region of 96 voxels\)"
    for allow_partial in (False, True):
        refused(network, path, message, allow_partial=allow_partial)
    assert load_pretrained(network, path, part="swin").left, "the encoder alone is asked for and fits"


def test_window_tokens_fit_any_region(write: Callable) -> None:
    options: dict = {"feature_size": 12, "dim_options": {"tokens": "windows"}}
    path = write({"model": SwinFUSEPretrainer(roi_size=64, **options).state_dict()})
    assert not load_pretrained(SwinFUSE(1, 3, roi_size=96, **options), path).unfilled


def test_a_module_that_only_one_side_has(write: Callable) -> None:
    with_module = write({"model": SwinFUSEPretrainer(**SMALL).state_dict()})
    plain = SwinUNETR(1, 2, feature_size=12)
    refused(plain, with_module, r"28 tensors of a domain invariance module that the network lacks.*part='swin'")
    report = load_pretrained(plain, with_module, part="swin")
    assert len(report.left) == 28 + 16
    assert any("domain invariance module are left out" in warning for warning in report.warnings)
    without = write(swin_unetr_ssl())
    refused(SwinFUSE(1, 2, **SMALL), without, r"only 126 of 154 tensors.*domain_invariance\.psi.*part='swin'")


def test_other_settings_of_the_module(write: Callable) -> None:
    path = write({"model": SwinFUSEPretrainer(**SMALL, dim="paper").state_dict()})
    error = refused(SwinFUSE(1, 2, **SMALL), path, r"the network lacks \(swinViT\.domain_invariance\.psi\.1\.0")
    assert isinstance(error.report, LoadReport)


@pytest.mark.parametrize("record", ["configuration.json", "model.json"])
@pytest.mark.parametrize(
    ("trained", "built", "message"),
    [
        ({"gate": "product"}, {}, "gate='product' in its record, 'sigmoid' in the network"),
        ({}, {"residual": False}, "residual=True in its record, False in the network"),
        ({"num_heads": [6, 12, 24, 48], "head_dim": 8}, {}, r"num_heads=\[6, 12, 24, 48\].*head_dim=8"),
    ],
)
def test_settings_that_no_tensor_shows(record: str, trained: dict, built: dict, message: str, write: Callable) -> None:
    """Such modules fit tensor by tensor and compute something else; the record beside the weights tells."""
    path = write({"model": SwinFUSEPretrainer(**SMALL, dim_options=trained).state_dict()})
    network = SwinFUSE(1, 2, **SMALL, dim_options=built)
    assert not load_pretrained(network, path).unfilled, "without a record nothing can be known"
    path.with_name(record).write_text(json.dumps({"dim": "swinfuse", "dim_options": trained}), encoding="utf-8")
    refused(network, path, message)
    assert load_pretrained(network, path, part="swin").left
    assert not load_pretrained(SwinFUSE(1, 2, **SMALL, dim_options=trained), path).unfilled


@pytest.mark.parametrize("text", ["", "[1]", '{"dim": "$@x"}', '{"dim": "swinfuse", "dim_options": "@options"}', "{"])
def test_records_that_do_not_tell_are_no_hindrance(text: str, write: Callable) -> None:
    path = write({"model": SwinFUSEPretrainer(**SMALL).state_dict()})
    path.with_name("configuration.json").write_text(text, encoding="utf-8")
    assert not load_pretrained(SwinFUSE(1, 2, **SMALL), path).unfilled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_size": 24}, r"patch_embed\.proj\.weight: file \(12, 1, 2, 2, 2\), network \(24, 1"),
        ({"window_size": 5}, r"relative_position_bias_table: file \(2197, 3\), network \(729, 3\)"),
        ({"depths": (2, 4, 2, 2)}, r"layers2\.0\.blocks\.2\.norm1\.weight: file has none"),
        ({"num_heads": (2, 6, 12, 24)}, r"relative_position_bias_table: file \(2197, 3\), network \(2197, 2\)"),
    ],
)
def test_another_architecture(options: dict, message: str, write: Callable) -> None:
    network = SwinUNETR(1, 2, **({"feature_size": 12} | options))
    error = refused(network, write(swin_unetr_ssl()), message)
    assert "allow_partial" in str(error)


def test_whole_network_with_another_number_of_classes(write: Callable) -> None:
    path = write(SwinUNETR(1, 5, feature_size=12).state_dict())
    network = SwinUNETR(1, 3, feature_size=12)
    refused(network, path, r"out\.conv\.conv\.weight: file \(5, 12, 1, 1, 1\), network \(3, 12", part="all")
    before = network.out.conv.conv.weight.clone()
    report = load_pretrained(network, path, part="all", allow_partial=True)
    assert report.unfilled == ["out.conv.conv.weight", "out.conv.conv.bias"]
    assert torch.equal(network.out.conv.conv.weight, before)


def test_partial_still_needs_enough(write: Callable) -> None:
    state = SwinUNETR(1, 2, feature_size=12).state_dict()
    few = {key: value for key, value in state.items() if "patch_embed" in key or "layers1" in key}
    network = SwinUNETR(1, 2, feature_size=12)
    refused(network, write(few), r"only 33 of 120 tensors of the part 'encoder' fit", allow_partial=True)
    more = few | {key: value for key, value in state.items() if "layers2" in key}
    assert len(load_pretrained(network, write(more), allow_partial=True).loaded) == 64
    nothing = {key: torch.zeros(3, 3, 3) for key in state}
    refused(network, write(nothing), "only 0 of", allow_partial=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float, write: Callable) -> None:
    content = swin_unetr_ssl()
    content["state_dict"]["module.layers2.0.blocks.1.attn.qkv.weight"][0, 0] = value
    refused(
        SwinUNETR(1, 2, feature_size=12), write(content), r"or are complex: module\.layers2\.0\.blocks\.1\.attn\.qkv"
    )


def test_half_precision_weights_are_raised_to_the_networks(write: Callable) -> None:
    source = SwinUNETR(1, 2, feature_size=12)
    path = write({k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()})
    network = SwinUNETR(1, 2, feature_size=12)
    load_pretrained(network, path, part="all")
    assert network.out.conv.conv.weight.dtype == torch.float32
    torch.testing.assert_close(network.out.conv.conv.weight, source.out.conv.conv.weight, atol=1e-3, rtol=1e-3)


def test_whole_numbers_that_a_mean_made_floats_are_whole_numbers_again(write: Callable) -> None:
    network = SwinFUSE(1, 2, **SMALL)
    state = {name: value.float() for name, value in network.state_dict().items()}
    load_pretrained(SwinFUSE(1, 2, **SMALL), write({"model": state}))
    name = next(name for name, value in network.state_dict().items() if not value.is_floating_point())
    state[name] = state[name] + 0.5
    with pytest.raises(CheckpointError, match=name):
        load_pretrained(SwinFUSE(1, 2, **SMALL), write({"model": state}))


def test_another_network_altogether(write: Callable) -> None:
    path = write({"model": nn.Linear(2, 2).state_dict()})
    refused(SwinUNETR(1, 2, feature_size=12), path, r"no Swin encoder among its 2 tensors: found weight, bias")
    with pytest.raises(ValueError, match="found Linear, expected one with a Swin encoder"):
        load_pretrained(nn.Linear(2, 2), write(swin_unetr_ssl()))


# The patch merging of older checkpoints.


@pytest.mark.parametrize("content", [swin_unetr_ssl, monai_ssl, authors])
def test_old_patch_merging_is_recognised_by_the_kind_of_file(content: Callable, write: Callable) -> None:
    path, options = write(content()), SMALL | (RELEASED if content is authors else {"dim": "none"})
    report = load_pretrained(SwinFUSE(1, 2, **options), path)
    assert len(report.warnings) == 1 and "downsample='legacy'" in report.warnings[0]
    assert not load_pretrained(SwinFUSE(1, 2, **options, downsample="legacy"), path).warnings
    assert not load_pretrained(SwinFUSE(1, 2, **options), path, merging="current").warnings


def test_stated_patch_merging_has_to_be_that_of_the_network(write: Callable) -> None:
    path = write(SwinUNETR(1, 2, feature_size=12).state_dict())
    current, legacy = SwinFUSE(1, 2, **SMALL, dim="none"), SwinFUSE(1, 2, **SMALL, dim="none", downsample="legacy")
    refused(current, path, r"Build it with downsample='legacy'", merging="legacy")
    refused(legacy, path, r"Build it with downsample='merging'", merging="current")
    for network, stated in ((current, "current"), (legacy, "legacy")):
        assert not load_pretrained(network, path, merging=stated).warnings


def test_segmentation_weights_of_unknown_age_are_loaded_with_a_warning(write: Callable) -> None:
    network = SwinFUSE(1, 2, **SMALL, dim="none")
    for part in ("encoder", "all"):
        (warning,) = load_pretrained(network, write(SwinUNETR(1, 2, feature_size=12).state_dict()), part=part).warnings
        assert "merging='legacy'" in warning
    assert not load_pretrained(network, write({"model": SwinFUSEPretrainer(**SMALL).state_dict()}), part="swin").notes


def test_convolutions_of_the_second_version_are_not_dropped(write: Callable) -> None:
    path = write(SwinUNETR(1, 2, feature_size=12, use_v2=True).state_dict())
    refused(SwinFUSE(1, 2, **SMALL, dim="none"), path, "use_v2=True", merging="current")
    assert len(load_pretrained(SwinFUSE(1, 2, **SMALL, dim="none", use_v2=True), path, merging="current").loaded) > 126


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "network.", "_forward_module.", "_fsdp_wrapped_module.", "a.module.b._orig_mod."]
)
def test_any_common_prefix_is_found(prefix: str, write: Callable) -> None:
    source = SwinFUSE(1, 2, **SMALL)
    wrapped = {prefix + key: value for key, value in source.state_dict().items()}
    inside = {key.replace("swinViT.", "swinViT._orig_mod."): value for key, value in source.state_dict().items()}
    for content in (wrapped, {**wrapped, "criterion.weight": torch.ones(2)}, inside):
        network = SwinFUSE(1, 2, **SMALL)
        load_pretrained(network, write({"state_dict": content}), part="all")
        assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), source.state_dict().values()))


def test_two_encoders_in_one_file_are_refused(write: Callable) -> None:
    weights = SwinUNETR(1, 2, feature_size=12).state_dict()
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in weights.items()}
    refused(SwinFUSE(1, 2, **SMALL, dim="none"), write(both), "several Swin encoders, under 'student.', 'teacher.'")


@pytest.mark.parametrize("recorded", ["legacy", "mergingv2"])
@pytest.mark.parametrize("place", ["downsample", "network_options"])
def test_recorded_patch_merging_has_to_be_that_of_the_network(recorded: str, place: str, write: Callable) -> None:
    path = write(SwinUNETR(1, 2, feature_size=12).state_dict())
    record = {"downsample": recorded} if place == "downsample" else {place: {"downsample": recorded}}
    path.with_name("model.json").write_text(json.dumps(record), encoding="utf-8")
    current, other = SwinFUSE(1, 2, **SMALL, dim="none"), SwinFUSE(1, 2, **SMALL, dim="none", downsample=recorded)
    refused(current, path, rf"{recorded} patch merging \(by the record.*downsample='{recorded}'")
    assert not load_pretrained(other, path).warnings
    assert not load_pretrained(current, path, merging="current").warnings, "what the user says goes first"


def test_record_beside_a_file_from_elsewhere_is_of_another_network(write: Callable) -> None:
    path = write(swin_unetr_ssl())
    path.with_name("model.json").write_text('{"network_options": {"downsample": "merging"}}', encoding="utf-8")
    assert not load_pretrained(SwinFUSE(1, 2, **SMALL, dim="none", downsample="legacy"), path).warnings


# The report.


def test_report_names_every_tensor_once_with_status_and_reason(write: Callable) -> None:
    pretrainer, network = SwinFUSEPretrainer(**SMALL), SwinFUSE(4, 3, **SMALL)
    report = load_pretrained(network, write({"model": pretrainer.state_dict()}))
    lines = report.table().splitlines()[1:]
    wanted = [key for key in network.state_dict() if key.startswith("swinViT.")]
    assert [line.split()[0] for line in lines] == wanted + list(report.left)
    assert lines[0].split()[1] == "adapted" and "1 input channel spread over 4" in lines[0]
    assert "(12, 1, 2, 2, 2)" in lines[0] and "(12, 4, 2, 2, 2)" in lines[0]
    assert "no such tensor in the network" in lines[-1]
    short = str(report)
    assert "153 loaded, 1 adapted, 16 left" in short.splitlines()[0]
    assert len(short.splitlines()) < 20


def test_report_is_logged_louder_where_something_can_be_wrong(
    write: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="swinfuse_components.checkpoints")
    load_pretrained(SwinFUSE(1, 2, **SMALL, dim="none"), write(swin_unetr_ssl()))
    load_pretrained(SwinFUSE(1, 2, **SMALL, dim="none", downsample="legacy"), write(swin_unetr_ssl()))
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert "126 loaded" in caplog.messages[0] and "WARNING: weights of this kind" in caplog.messages[0]
