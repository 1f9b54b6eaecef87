import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from swinfuse_components.data.modalities import REGISTRY

# the same examples every time: no test fails by chance
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository: the folder that holds `bundles/` and `scripts/`."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def swinfuse_data() -> Path:
    """The folder with real volumes (`SynthRAD_like`, `MSD_like`, `BraTS21_like`), named by SWINFUSE_DATA."""
    value = os.environ.get("SWINFUSE_DATA")
    if not value:
        pytest.skip("SWINFUSE_DATA is unset: it names the folder with the real volumes")
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        pytest.fail(f"SWINFUSE_DATA is {value}, which is no folder; unset it to skip the tests on real volumes")
    return folder


@pytest.fixture(autouse=True)
def _own_modalities() -> Iterator[None]:
    """A modality that one test registers is not there for the next, in whatever order they run."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)
