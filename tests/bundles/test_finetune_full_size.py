"""One step of each fine-tuning bundle as it is shipped: 96 cubed, feature size 48, two views."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from ..models import read_rows
from .conftest import write_data

# run by a child, so that the peak is that of this one training
RUN = """
import resource, sys
from monai.bundle import ConfigWorkflow
path, dataset_dir, run_dir = sys.argv[1:]
workflow = ConfigWorkflow(
    config_file=path, workflow_type=None, logging_file=False, dataset_dir=dataset_dir, run_dir=run_dir,
    num_folds=2, max_epochs=1, val_interval=0, num_workers=0, device="$torch.device('cpu')",
)
workflow.initialize()
workflow.run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_a_full_step_fits_into_24_gigabytes(bundle: str, repository: Path, tmp_path: Path) -> None:
    channels = {"channels": ("CT",)} if bundle == "finetune_msd" else {}
    folder = write_data(bundle, tmp_path, cases=2, shape=(112, 112, 112), **channels)
    config = repository / "bundles" / bundle / "configs" / "train.json"
    arguments = [sys.executable, "-c", RUN, str(config), str(folder), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    gigabytes = int(done.stdout.split()[-1]) / 2**20
    print(f"{bundle}: {gigabytes:.1f} GB")
    assert gigabytes < 24
    (row,) = read_rows(tmp_path / "run" / "losses.csv")
    assert math.isfinite(float(row["loss"]))
