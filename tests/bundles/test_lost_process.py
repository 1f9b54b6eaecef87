"""A training on two processes as Slurm's ``srun`` starts them, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import write_synthrad
from .test_pretrain import SMALL, configuration


@pytest.mark.slow
def test_killing_one_process_ends_the_other_within_a_minute(repository: Path, tmp_path: Path) -> None:
    dataset, run_dir = write_synthrad(tmp_path / "data"), tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {**SMALL, "dataset_dir": dataset, "run_dir": run_dir, "epoch_length": 10000}
    files = str(configuration(repository, "train.json", "multi_gpu_train.json"))
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    logs = [tmp_path / f"{rank}.log" for rank in range(2)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
            with log.open("w", encoding="utf-8") as stream:
                processes.append(subprocess.Popen(command, env=os.environ | place, stderr=stream, stdout=stream))
        end = time.monotonic() + 500
        while not (run_dir / "losses.csv").is_file() or len((run_dir / "losses.csv").read_text().splitlines()) < 3:
            assert all(process.poll() is None for process in processes) and time.monotonic() < end, logs[0].read_text()
            time.sleep(0.2)
        processes[1].send_signal(signal.SIGKILL)
        assert processes[0].wait(60) == 1
        assert "error: rank 0 of 2 lost another process of this run" in logs[0].read_text(encoding="utf-8")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
