"""What loading costs for more volumes than memory holds: CPU time and memory of the loaders of pre-training.

python -m benchmarks.volumes WORK_DIR [--volumes 2000] [--crops 4] [--roi_size 48]

writes generated CT volumes (96 x 96 x 48 voxels of 2 x 2 x 4 mm, .nii.gz) to WORK_DIR, then draws every volume once
through the transforms of the pretrain bundle at 2 mm, each loader in a process of its own:

- plain: read, resample and crop each time (cache_rate 0);
- first pass, second pass: cache_on_disk.yaml, one sub-volume from each volume that is read;
- crops: the second pass with several sub-volumes from each;
- memory: the bundle's default, everything cached in memory (cache_rate 1), here for a tenth of the volumes.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import fire
import nibabel as nib
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "bundles" / "pretrain" / "configs"
SHAPE = (96, 96, 48)


def generate(folder: Path, volumes: int) -> None:
    """Ellipsoids of fat, muscle and bone with noise, in air; volumes that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32) for side in SHAPE], indexing="ij"))
    for number in range(volumes):
        file = folder / f"p{number:05d}_ct.nii.gz"
        if not file.exists():
            rng = np.random.default_rng(number)
            values = np.full(SHAPE, -1000, np.float32)
            for density, size in ((-100, 0.9), (50, 0.7), (700, 0.2)):
                centre, axes = rng.uniform(-0.1, 0.1, (3, 1, 1, 1)), size * rng.uniform(0.8, 1, (3, 1, 1, 1))
                values[(((grid - centre) / axes) ** 2).sum(0) < 1] = density
            values += rng.normal(0, 20, SHAPE)
            nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([2.0, 2, 4, 1])), file)


def draw(files: list[str], config: dict) -> None:
    """Draw every volume once; print what it took, as JSON."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(files)
    parser.update({"bundle_root": str(CONFIGS.parent), "num_workers": 0, "check_contents": False, **config})
    items = parser.get_parsed_content("train_items")
    dataset = parser.get_parsed_content("train::dataset")
    subvolumes, peaks, start, cpu = 0, [], time.perf_counter(), time.process_time()
    for number in range(len(items)):
        views = dataset[number]
        subvolumes += len(views) if isinstance(views, list) else 1
        if number % max(len(items) // 4, 1) == 0:
            peaks.append(_resident())
    print(
        json.dumps(
            {
                "volumes": len(items),
                "subvolumes": subvolumes,
                "cpu": time.process_time() - cpu,
                "seconds": time.perf_counter() - start,
                "resident": [*peaks, _resident()],
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
    )


def _resident() -> float:
    """Memory of this process in GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def main(work_dir: str, volumes: int = 2000, crops: int = 4, roi_size: int = 48) -> None:
    """Generate, measure, print a table."""
    work = Path(work_dir).resolve()
    generate(work / "volumes", volumes)
    generate(work / "tenth", volumes // 10)
    train = [str(CONFIGS / name) for name in ("train.json", "pretext_tasks.yaml")]
    disk = [*train, str(CONFIGS / "cache_on_disk.yaml")]
    shared = {"run_dir": str(work / "run"), "roi_size": roi_size, "spacing": [2.0] * 3, "train_items": "$@items"}
    runs = {
        "plain": (train, {"cache_rate": 0.0}),
        "disk, first pass": (disk, {"crops": 1}),
        "disk, second pass": (disk, {"crops": 1}),
        f"disk, second pass, {crops} crops": (disk, {"crops": crops}),
        "memory, a tenth of the volumes": (train, {"cache_rate": 1.0}),
    }
    print("| loader | volumes | sub-volumes | CPU ms per sub-volume | memory, GiB: 0, 25, 50, 75, 100 % | peak |")
    print("|---|---|---|---|---|---|")
    for name, (files, config) in runs.items():
        data = work / ("tenth" if "tenth" in name else "volumes")
        job = json.dumps([files, {**shared, **config, "dataset_dir": str(data)}])
        code = f"import json; from benchmarks.volumes import draw; draw(*json.loads({job!r}))"
        command = [sys.executable, "-W", "ignore", "-c", code]
        run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(run.stderr)
        found = json.loads(run.stdout.splitlines()[-1])
        memory = " ".join(f"{value:.2f}" for value in found["resident"])
        cost = 1000 * found["cpu"] / found["subvolumes"]
        print(f"| {name} | {found['volumes']} | {found['subvolumes']} | {cost:.1f} | {memory} | {found['peak']:.2f} |")


if __name__ == "__main__":
    fire.Fire(main)
