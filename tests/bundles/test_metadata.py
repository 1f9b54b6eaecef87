"""What every bundle must hold before anybody else will take it: its files, its metadata and its properties."""

import json
import logging
import logging.config
import shutil
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import verify_metadata
from packaging.requirements import Requirement

from .conftest import configs, parse

BUNDLES = ("pretrain", "finetune_msd", "finetune_brats", "ood_eval")
TRAINING = ("pretrain", "finetune_msd", "finetune_brats")
ZOO_PYTHON = "3.10"  # of the Model Zoo's own checks: newer releases of numpy and others do not exist for it
SCHEMA = Path(__file__).parent / "meta_schema_20240725.json"
# beyond the schema: what the Model Zoo reads, and what a reader of the zoo's pages expects
ZOO_KEYS = ("name", "changelog", "data_source", "data_type", "intended_use", "references")


def read_metadata(repository: Path, bundle: str) -> dict[str, Any]:
    return json.loads((repository / "bundles" / bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


def pinned_versions(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    held = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": ZOO_PYTHON})]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in held}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_follows_the_schema(repository: Path, bundle: str, tmp_path: Path) -> None:
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    verify_metadata(meta_file=str(repository / "bundles" / bundle / "configs/metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_names_what_was_tested(repository: Path, bundle: str) -> None:
    metadata = read_metadata(repository, bundle)
    assert not [key for key in ZOO_KEYS if not metadata.get(key)]
    assert metadata["schema"].endswith(SCHEMA.name)
    assert metadata["version"] in metadata["changelog"]
    pinned = pinned_versions(repository)
    found = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    assert found == {name: pinned.get(name) for name in found}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_files_of_a_bundle(bundle: str) -> None:
    wanted = ["metadata.json", "inference.json", "evaluate.json", "logging.conf", "../docs/README.md", "../LICENSE"]
    wanted += ["train.json", "multi_gpu_train.json"] if bundle in TRAINING else []
    assert not [path for path in configs(bundle, *wanted) if not Path(path).is_file()]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_logging_configuration_loads(bundle: str) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logging.config.fileConfig(configs(bundle, "logging.conf")[0], disable_existing_loggers=False)
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_workflows_answer_to_default_and_to_spoken_ids(bundle: str) -> None:
    training = ["train.json"] if bundle in TRAINING else []
    for files, spoken in ((["inference.json"], "inference"), ([*training, "evaluate.json"], "evaluating")):
        assert {"initialize", "run", spoken} <= set(parse(bundle, *files).get())
    if training:
        assert {"initialize", "run", "finalize", "training"} <= set(parse(bundle, *training).get())
