"""One step of each fine-tuning bundle as it is shipped: 96 cubed, feature size 48, two views."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
def test_a_full_step_fits_into_24_gigabytes(
    bundle: str, repository: Path, make_msd_task: Callable[..., Path], make_brats: Callable[..., Path], tmp_path: Path
) -> None:
    size = {"cases": 2, "shape": (112, 112, 112)}
    folder = make_brats(**size) if bundle == "finetune_brats" else make_msd_task("Task91_Full", ("CT",), **size)
    config = repository / "bundles" / bundle / "configs" / "train.json"
    arguments = [sys.executable, "-c", RUN, str(config), str(folder), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    gigabytes = int(done.stdout.split()[-1]) / 2**20
    print(f"{bundle}: {gigabytes:.1f} GB")
    assert gigabytes < 24
    with open(tmp_path / "run" / "losses.csv", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert math.isfinite(float(row["loss"]))
