"""The example for Slurm, with stand-ins for Slurm's commands."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (75, True), (137, False)])
def test_job_is_queued_again_only_when_it_was_stopped_and_has_saved(
    code: int, requeued: bool, repository: Path, tmp_path: Path
) -> None:
    commands = {
        "srun": f'"$@"; exit {code}',
        "python": f'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $*" > {tmp_path}/called',
        "scontrol": f'[ "$1" = show ] && echo node7 && echo node8; [ "$1" = requeue ] && echo "$2" > {tmp_path}/queue',
    }
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "42", "JOB_NODELIST": "node[7-8]", "PROCID": "3", "LOCALID": "3", "NTASKS": "16"}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(repository / "bundles" / "pretrain" / "docs" / "pretrain.sbatch"), "/data/my volumes"],
        env=environment | {f"SLURM_{name}": value for name, value in slurm.items()},
    )
    assert done.returncode == code
    assert (tmp_path / "queue").exists() == requeued
    called = (tmp_path / "called").read_text(encoding="utf-8")
    assert called.startswith("3 3 16 node7 -m monai.bundle run training --config_file ['configs/train.json',")
    assert "--dataset_dir /data/my volumes --num_workers 7 --resume True" in called
