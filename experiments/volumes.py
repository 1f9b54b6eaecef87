"""The volumes of the experiments, resampled once: what every cell would otherwise repeat.

    python experiments/volumes.py --data_dir DIR --output_dir DIR [--spacing 6]

reads `SynthRAD_like` and `MSD_like` (docs/data.md) and writes the same layouts on an isotropic grid in RAS order. The
two sarcoma tasks get a second class beside the tumour: bone, which is the CT above a threshold, and on the MRI the
registered CT of the same patient above it. One network then answers two questions, one with a strong prior of position
(volumes are cropped around their tumour) and one with hardly any. The tasks of other organs are copied as they are.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fire
from monai.data import MetaTensor
from monai.transforms import Compose, ResampleToMatch, SaveImage

from swinfuse_components.data import msd_datalist, synthrad_datalist
from swinfuse_components.transforms import load_on_grid

TASKS = {"ct": "Task51_SarcomaCT", "mr": "Task52_SarcomaMR"}
OTHER_ORGANS = ("Task50_HeadNeckCT", "Task04_Hippocampus")
CLASSES = {"0": "background", "1": "tumour", "2": "bone"}
BONE = 2
BONE_THRESHOLD_HU = 250.0


def _reader(spacing: float, is_label: bool = False) -> Callable[[str], MetaTensor]:
    keys = {"images": [], "labels": ["volume"]} if is_label else {"images": ["volume"]}
    read = Compose(load_on_grid(spacing=(spacing,) * 3, **keys))
    return lambda path: read({"volume": path})["volume"]


def _save(volume: MetaTensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = "uint8" if "labels" in path.parent.name or path.name.startswith("mask") else "float32"
    SaveImage(output_dtype=dtype, resample=False, print_log=False, writer="NibabelWriter")(
        volume, filename=str(path).removesuffix(".nii.gz")
    )


def with_bone(label: MetaTensor, ct: MetaTensor) -> MetaTensor:
    """The tumour's label map (1, D, H, W) with the bone of a CT in the same space, where there is no tumour."""
    ct = ResampleToMatch(mode="bilinear", padding_mode="border")(ct, img_dst=label)
    found = label.clone()
    found[(ct > BONE_THRESHOLD_HU) & (label == 0)] = BONE
    return found


def _write_description(folder: Path, name: str, modality: str, patients: list[str]) -> None:
    content = {
        "name": name,
        "modality": {"0": modality},
        "labels": CLASSES,
        "numTraining": len(patients),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{p}.nii.gz", "label": f"./labelsTr/{p}.nii.gz"} for p in patients],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def prepare(data_dir: str, output_dir: str, spacing: float = 6.0) -> str:
    """Write the resampled copies; volumes that are there already are kept.

    Args:
        data_dir: folder with `SynthRAD_like` and `MSD_like`.
        output_dir: folder for the copies, in the same layouts.
        spacing: voxel size in millimetres along every axis.
    """
    source, target = Path(data_dir), Path(output_dir)
    image, label = _reader(spacing), _reader(spacing, is_label=True)
    pairs = {pair["patient"]: pair for pair in synthrad_datalist(source / "SynthRAD_like")}
    for modality, task in TASKS.items():
        items = msd_datalist(source / "MSD_like" / task)
        folder = target / "MSD_like" / task
        for item in items:
            patient = item["patient"]
            if (folder / "labelsTr" / f"{patient}.nii.gz").is_file():
                continue
            volume = image(item["image"])
            ct = volume if modality == "ct" else image(pairs[patient]["ct"])
            _save(volume, folder / "imagesTr" / f"{patient}.nii.gz")
            _save(with_bone(label(item["label"]), ct), folder / "labelsTr" / f"{patient}.nii.gz")
        name = {"ct": "CT", "mr": "MRI"}[modality]
        _write_description(folder, task.split("_")[1], name, [item["patient"] for item in items])

    for patient, pair in pairs.items():
        folder = target / "SynthRAD_like" / "Task1" / pair["region"] / patient
        if (folder / "mask.nii.gz").is_file():
            continue
        for key in ("ct", "mr"):
            _save(image(pair[key]), folder / f"{key}.nii.gz")
        _save(label(pair["mask"]), folder / "mask.nii.gz")

    for task in OTHER_ORGANS:
        shutil.copytree(source / "MSD_like" / task, target / "MSD_like" / task, dirs_exist_ok=True)
    return str(target)


if __name__ == "__main__":
    fire.Fire(prepare)
