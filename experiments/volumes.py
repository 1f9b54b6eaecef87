"""The volumes of the experiments, resampled once: what every cell would otherwise repeat.

    python experiments/volumes.py --data_dir DIR --output_dir DIR [--spacing 4]

reads `SynthRAD_like` and `MSD_like` (docs/data.md) and writes the same layouts on an isotropic grid in RAS order, and
the bone probe: the label of both images of a registered pair is its CT above a threshold.
"""

import json
from pathlib import Path

import fire
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, Orientation, SaveImage, Spacing

from swinfuse_components.data import msd_datalist, synthrad_datalist

TUMOUR_TASKS = ("Task51_SarcomaCT", "Task52_SarcomaMR")
BONE_TASKS = {"ct": "Task71_BoneCT", "mr": "Task72_BoneMR"}
BONE_THRESHOLD_HU = 250.0


def _reader(spacing: float, mode: str) -> Compose:
    return Compose(
        [
            LoadImage(ensure_channel_first=True, dtype="float32"),
            Orientation(axcodes="RAS", labels=None),
            Spacing(pixdim=(spacing,) * 3, mode=mode),
        ]
    )


def _save(volume: MetaTensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = "uint8" if "labels" in path.parent.name or path.name.startswith("mask") else "float32"
    SaveImage(output_dtype=dtype, resample=False, print_log=False, writer="NibabelWriter")(
        volume, filename=str(path).removesuffix(".nii.gz")
    )


def _write_description(folder: Path, name: str, modality: str, label: str, patients: list[str]) -> None:
    content = {
        "name": name,
        "modality": {"0": modality},
        "labels": {"0": "background", "1": label},
        "numTraining": len(patients),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{p}.nii.gz", "label": f"./labelsTr/{p}.nii.gz"} for p in patients],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def prepare(data_dir: str, output_dir: str, spacing: float = 4.0) -> str:
    """Write the resampled copies; volumes that are there already are kept.

    Args:
        data_dir: folder with `SynthRAD_like` and `MSD_like`.
        output_dir: folder for the copies, in the same layouts.
        spacing: voxel size in millimetres along every axis.
    """
    source, target = Path(data_dir), Path(output_dir)
    image, label = _reader(spacing, "bilinear"), _reader(spacing, "nearest")
    for task in TUMOUR_TASKS:
        items = msd_datalist(source / "MSD_like" / task)
        folder = target / "MSD_like" / task
        for item in items:
            for key, read, sub in (("image", image, "imagesTr"), ("label", label, "labelsTr")):
                path = folder / sub / f"{item['patient']}.nii.gz"
                if not path.is_file():
                    _save(read(item[key]), path)
        modality = {"ct": "CT", "mr": "MRI"}[items[0]["modality"]]
        _write_description(folder, task.split("_")[1], modality, "tumour", [i["patient"] for i in items])

    pairs = synthrad_datalist(source / "SynthRAD_like")
    for pair in pairs:
        folder = target / "SynthRAD_like" / "Task1" / pair["region"] / pair["patient"]
        if (folder / "mask.nii.gz").is_file():
            continue
        volumes = {key: image(pair[key]) for key in ("ct", "mr")}
        bone = volumes["ct"].clone()
        bone[:] = (volumes["ct"] > BONE_THRESHOLD_HU).to(torch.float32)
        for key, volume in volumes.items():
            _save(volume, folder / f"{key}.nii.gz")
            _save(volume, target / "MSD_like" / BONE_TASKS[key] / "imagesTr" / f"{pair['patient']}.nii.gz")
            _save(bone, target / "MSD_like" / BONE_TASKS[key] / "labelsTr" / f"{pair['patient']}.nii.gz")
        _save(label(pair["mask"]), folder / "mask.nii.gz")
    for key, task in BONE_TASKS.items():
        modality = {"ct": "CT", "mr": "MRI"}[key]
        names = [p["patient"] for p in pairs]
        _write_description(target / "MSD_like" / task, task.split("_")[1], modality, "bone", names)
    return str(target)


if __name__ == "__main__":
    fire.Fire(prepare)
