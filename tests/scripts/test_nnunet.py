import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from swinfuse_components.data import msd_datalist, split_folds

from ..bundles.conftest import write_msd_task


def test_nnunet_is_given_our_folds(repository: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(repository / "scripts" / "nnunet_baseline.py"))
    items = [
        {"image": f"{tmp_path}/i/{n}.nii.gz", "label": f"{tmp_path}/l/{n}.nii.gz", "fold": n % 3} for n in range(7)
    ]
    splits = script["nnunet_splits"](items)
    assert splits[1] == {"train": ["case_0", "case_2", "case_3", "case_5", "case_6"], "val": ["case_1", "case_4"]}
    for split in splits:
        assert not set(split["train"]) & set(split["val"])
        assert set(split["train"]) | set(split["val"]) == {f"case_{n}" for n in range(7)}
    written = script["nnunet_datalist"](items, str(tmp_path))
    assert written["training"][4] == {"image": "i/4.nii.gz", "label": "l/4.nii.gz", "fold": 1}


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None and "SWINFUSE_NNUNET_PYTHON" not in os.environ,
    reason="nnU-Net is an extra: install it, or name a Python that has it in SWINFUSE_NNUNET_PYTHON",
)
def test_nnunet_trains_predicts_and_stands_in_the_table(repository: Path, tmp_path: Path) -> None:
    folder = write_msd_task(tmp_path, "Task90_Toy", ("MRI",), ("box",), shape=(32, 36, 32))
    python = os.environ.get("SWINFUSE_NNUNET_PYTHON", sys.executable)
    environment = {**os.environ, "nnUNet_n_proc_DA": "1", "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    command = [python, "scripts/nnunet_baseline.py", str(folder), "--fold", "1", "--num_folds", "2"]
    command += ["--work_dir", str(tmp_path / "nnunet"), "--epochs", "2", "--iterations", "2", "--device", "cpu"]
    subprocess.run([*command, "--processes", "1"], cwd=repository, env=environment, check=True, timeout=3000)
    record = json.loads((tmp_path / "nnunet" / "fold1" / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    held_out = {item["patient"] for item in split_folds(msd_datalist(folder), 2, seed=0) if item["fold"] == 1}
    assert {case["patient"] for case in record["cases"]} == held_out
    assert not held_out & set(record["training_patients"]) and 0 <= record["mean"]["dice"]["mean"] <= 1
    table = subprocess.run(
        [sys.executable, "scripts/table.py", str(tmp_path / "nnunet")], cwd=repository, capture_output=True, check=True
    )
    assert b"**nnU-Net (2x2)** (measured here)" in table.stdout
