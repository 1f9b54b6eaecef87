"""``python -m benchmarks``: measure the cases beside their reference and write a table.

python -m benchmarks --output runs/benchmarks                          every case at full size
python -m benchmarks --cases pretraining --rounds 3                    one of them
python -m benchmarks --feature_size 12 --roi_size 64 --window_size 4   small, minutes
python -m benchmarks --device cuda                                     the table for a GPU: precisions, batches 1 to 8
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import fire
import torch

from swinfuse_components.networks import SwinFUSEPretrainer

from .cases import CASES, GPU_VARIANTS, Settings
from .reference import ReferencePretrainer, check_same_work
from .report import to_markdown
from .worker import measure

TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
# Cases of which every batch size is measured.
BATCHED = ("pretraining", "finetuning", "fed")
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
MALLOC: dict[str, dict[str, str]] = {"default": {}, "tuned": TUNED, "huge": TUNED | HUGE_PAGES}


def _work_in_a_process(request: dict, malloc: str) -> dict:
    environment = {key: value for key, value in os.environ.items() if key not in MALLOC["huge"]} | MALLOC[malloc]
    environment["OMP_NUM_THREADS"] = str(request["threads"])
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(request)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:]}
    return json.loads(lines[-1].removeprefix("RESULT "))


def _work_on_the_gpu(request: dict) -> dict:
    """In this process, since a start takes longer than a measurement: the memory of a GPU is counted anew for each."""
    arguments = {key: value for key, value in request.items() if key not in ("threads", "settings")}
    try:
        return measure(settings=Settings(**request["settings"]), **arguments)
    except RuntimeError as error:  # out of memory: then the batch before was the largest
        return {"error": [str(error).splitlines()[0]]}
    finally:
        gc.collect()
        torch.compiler.reset()


def check_reference() -> None:
    """Refuse to measure against a reference that does not do the same work (checked small, with padded windows)."""
    torch.manual_seed(0)
    ours = SwinFUSEPretrainer(roi_size=(64, 32, 32), feature_size=12, window_size=5, dim="none")
    views = torch.rand(2, 1, 1, 64, 32, 32)
    check_same_work(ours, ReferencePretrainer(12, 5), (views[0], views[1]))


def main(
    output: str = "runs/benchmarks",
    cases: Sequence[str] | str = tuple(CASES),
    variants: Sequence[str] | str = (),
    rounds: int = 3,
    repeats: int = 1,
    malloc: Sequence[str] | str = ("tuned",),
    shares: bool = False,
    threads: int = 1,
    roi_size: int = 96,
    feature_size: int = 48,
    window_size: int = 7,
    batch_size: Sequence[int] | int | None = None,
    device: str = "cpu",
    warm_up: bool = True,
) -> None:
    """Measure and write ``benchmarks.json`` and ``benchmarks.md`` to ``output``.

    Args:
        output: folder of the results; written anew after every measurement.
        cases: which cases, see ``benchmarks/cases.py``.
        variants: of these cases, instead of their usual ones; the reference is always among them.
        rounds: how often every variant is measured, in turn, each time in a process of its own.
        repeats: timed calls in each of these processes, after one that is not timed.
        malloc: of ``default`` (glibc's own), ``tuned`` and ``huge`` (tuned, in huge pages) those to measure; CPU only.
        shares: also the share of time of each kind of operation, and how much of the time the GPU was busy.
        threads: CPU threads of a measured process.
        roi_size: edge of the region.
        feature_size: channels of the patch embedding.
        window_size: attention window.
        batch_size: sub-volumes of a step, one number or several; 1 unless given, on a GPU 1, 2, 4 and 8.
        device: ``cpu`` or ``cuda``.
        warm_up: whether each measured process does its work once before; without, the first call is measured.
    """
    check_reference()
    torch.set_num_threads(threads)
    cuda = device.startswith("cuda")
    if batch_size is None:
        batch_size = (1, 2, 4, 8) if cuda else 1
    batches = (batch_size,) if isinstance(batch_size, int) else tuple(batch_size)
    settings = Settings(roi_size, feature_size, window_size, batches[0], device)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict = {"settings": dataclasses.asdict(settings), "threads": threads, "rounds": rounds, "measurements": []}
    results["torch"], results["device_name"] = torch.__version__, _device_name(device)
    for number, case, batch in itertools.product(range(rounds), _names(cases), batches):
        _, usual, first = CASES[case]
        if batch != batches[0] and case not in BATCHED:
            continue
        usual = (*usual, *GPU_VARIANTS.get(case, ())) if cuda else usual
        variants_of_case = dict.fromkeys((first, *(_names(variants) or usual)))
        for variant, setting in itertools.product(variants_of_case, ("default",) if cuda else _names(malloc)):
            request = {
                "case": case,
                "variant": variant,
                "settings": dataclasses.asdict(dataclasses.replace(settings, batch_size=batch)),
                "repeats": repeats,
                "with_shares": (shares or cuda) and number == 0,
                "threads": threads,
                "warm_up": warm_up,
            }
            found = _work_on_the_gpu(request) if cuda else _work_in_a_process(request, setting)
            what = f"round {number + 1}/{rounds}  {case:16} {variant:10} batch {batch} malloc {setting:8}"
            print(f"{what} {found}", flush=True)
            key = {"case": case, "variant": variant, "batch": batch, "malloc": setting, "round": number}
            results["measurements"].append(key | found)
            (folder / "benchmarks.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
            (folder / "benchmarks.md").write_text(to_markdown(results), encoding="utf-8")
    print(to_markdown(results))


def _names(value: Sequence[str] | str) -> list[str]:
    return [name for name in value.split(",") if name] if isinstance(value, str) else [str(item) for item in value]


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


if __name__ == "__main__":
    fire.Fire(main)
