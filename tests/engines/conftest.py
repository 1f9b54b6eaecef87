import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# toy_training.py is shared by these tests; pytest's importlib mode does not look beside a test for its imports
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def reference(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a toy run that was not interrupted."""
    from toy_training import ToyRun

    run_dir = tmp_path_factory.mktemp("reference")
    ToyRun(run_dir).run()
    return run_dir


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs are compared bit by bit, across processes: sums must be taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
