"""The quickstart leaves alone what it has not made, and refuses to share its folder."""

import fcntl
import subprocess
from pathlib import Path


def quickstart(repository: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [repository / "scripts" / "quickstart.sh", "--output", output, "--data", output, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_folders_of_somebody_else_are_left_alone(repository: Path, tmp_path: Path) -> None:
    precious = tmp_path / "pretrain" / "model.pt"
    precious.parent.mkdir()
    precious.write_text("months of work", encoding="utf-8")
    for arguments in ((), ("--fresh",)):
        done = quickstart(repository, tmp_path, *arguments)
        assert done.returncode == 1 and f"{precious.parent} is there already" in done.stderr
    assert precious.read_text(encoding="utf-8") == "months of work"


def test_two_calls_do_not_work_in_one_folder(repository: Path, tmp_path: Path) -> None:
    with (tmp_path / ".quickstart").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = quickstart(repository, tmp_path)
    assert done.returncode == 1 and "another call is at work" in done.stderr
