"""The bundles through MONAI's Python interface: load, workflows, export of a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow, load
from monai.inferers import SlidingWindowInferer

from swinfuse_components.data.paths import read_json

from .conftest import BUNDLES

CHANNELS = {"finetune_brats": 4}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_load_gives_the_network_with_every_weight(installed_package: Callable[[str], Path], bundle: str) -> None:
    folder = installed_package(bundle)
    # by default MONAI reads train.json and initializes it, which asks for the training data
    network = load(bundle, bundle_dir=str(folder.parent), workflow_type="inference", device="cpu")
    state, expected = network.state_dict(), weights_of(folder)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_config_workflow_has_every_property(
    installed_package: Callable[[str], Path], bundle: str, tmp_path: Path
) -> None:
    folder = installed_package(bundle)
    config = str(folder / "configs" / "inference.json")
    places: dict = {"dataset_dir": str(tmp_path), "bundle_root": str(folder), "listed": [], "items": []}
    workflow = ConfigWorkflow(config_file=config, workflow_type="inference", logging_file=False, **places)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.version == read_json(folder / "configs" / "metadata.json")["version"]
    assert set(workflow.network_def.state_dict()) == set(weights_of(folder))
    workflow.finalize()


def test_create_workflow_takes_overrides_and_objects(installed_package: Callable[[str], Path], tmp_path: Path) -> None:
    folder = installed_package("finetune_msd")
    config = str(folder / "configs" / "inference.json")
    options = {"workflow_type": "inference", "logging_file": False, "output_dir": str(tmp_path / "elsewhere")}
    workflow = create_workflow(config_file=config, **options)
    assert workflow.parser.get_parsed_content("output_dir") == str(tmp_path / "elsewhere")
    assert Path(workflow.bundle_root) == folder
    inferer = SlidingWindowInferer((64, 64, 64), overlap=0.0)
    workflow.inferer = inferer
    workflow.initialize()
    assert workflow.inferer is inferer


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_ckpt_export_traces_what_eager_computes(
    installed_package: Callable[[str], Path], bundle: str, tmp_path: Path
) -> None:
    folder = installed_package(bundle)
    shape = [1, CHANNELS.get(bundle, 1), 64, 64, 64]
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(folder / "models" / "model.pt"),
        meta_file=str(folder / "configs" / "metadata.json"),
        config_file=str(folder / "configs" / "inference.json"),
        bundle_root=str(folder),
        use_trace=True,
        input_shape=shape,
    )
    network = load(bundle, bundle_dir=str(folder.parent), workflow_type="inference", device="cpu").eval()
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, answer = network(image), torch.jit.load(tmp_path / "model.ts")(image)
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4)
