"""Make the demo cohort: simulated CT and MRI of deformed copies of one brain, without a download.

python scripts/demo_cohort.py OUTPUT_DIR [--subjects 16] [--seed 0] [--spacing 3]

The anatomy is the MNI152 template (T1, grey and white matter) that nilearn carries in its wheel. Every subject is the
template under a seeded smooth deformation; its MRI and CT are simulated. It shows that the software works and what its
files look like. **It is a demonstration, not evidence**: all subjects share one brain.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from monai.transforms import Compose, Rand3DElastic, RandAdjustContrast, RandBiasField, RandRicianNoise
from scipy import ndimage

from swinfuse_components.data import assign_folds
from swinfuse_components.engines import short_errors

DEMO_LABELS = {0: "background", 1: "brain", 2: "ventricles"}
NOTICE = (
    "DEMONSTRATION, not evidence: simulated CT and MRI of deformed copies of one brain (MNI152 template, nilearn). "
    "Scores on it say that the software runs, and nothing about patients."
)
_TISSUES = ("csf", "grey", "white", "skull", "scalp")
_HOUNSFIELD = np.array([8.0, 37.0, 28.0, 900.0, 20.0])  # grey matter is the denser one; MRI (T1) has it the darker one
_T1 = np.array([0.25, 0.60, 0.85, 0.10, 0.90])
_AIR_HU = -1000.0


def _template(spacing: int) -> tuple[np.ndarray, np.ndarray]:
    """Channels (7, X, Y, Z) of the template, and its affine: T1, the five tissues, ventricles."""
    try:
        from nilearn import datasets  # an optional dependency, needed for the demo alone
    except ImportError as error:
        raise ImportError("the demo cohort needs nilearn: pip install 'swinfuse-components[demo]'") from error
    image = datasets.load_mni152_template(spacing)
    maps = [image, datasets.load_mni152_gm_template(spacing), datasets.load_mni152_wm_template(spacing)]
    margin = int(np.ceil(21.0 / spacing))  # room for skull, scalp and a shift
    pad = [(0, 0), (0, 0), (margin, 0)]  # the template ends below the cerebellum
    t1, grey, white = (np.pad(np.clip(m.get_fdata(dtype=np.float32), 0, 1), pad) for m in maps)
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, 2] * margin

    brain = ndimage.binary_fill_holes(t1 > 0.1)
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    outside = ndimage.distance_transform_edt(~brain, sampling=spacing)
    fluid = brain & (t1 < 0.5) & (grey + white < 0.6)
    # lateral ventricles: of the fluid in this box of MNI space (mm) the parts that are no specks; the rest of the fluid
    # lies in the folds of the brain's surface and below it
    x, y, z = (affine[a, a] * np.arange(n) + affine[a, 3] for a, n in enumerate(t1.shape))
    box = np.ix_((np.abs(x) <= 40), (y >= -58) & (y <= 36), (z >= 3) & (z <= 34))
    inner = np.zeros_like(fluid)
    inner[box] = fluid[box] & (depth[box] > 15)
    parts, _ = ndimage.label(inner)
    sizes = np.bincount(parts.ravel())
    ventricles = inner & (sizes >= 1000 / spacing**3)[parts]
    share = grey / np.maximum(grey + white, 1e-3)
    solid = brain & ~fluid
    tissues = [
        fluid | ((outside > 0) & (outside <= 3)),
        np.where(solid, share, 0),
        np.where(solid, 1 - share, 0),
        (outside > 3) & (outside <= 9),
        (outside > 9) & (outside <= 15),
    ]
    return np.stack([t1, *tissues, ventricles]).astype(np.float32), affine


def _simulate(template: np.ndarray, spacing: float, seed: int) -> dict[str, np.ndarray]:
    """CT (HU), MRI, label map and head mask of one subject, on the template's grid."""
    random = np.random.RandomState(seed)
    warp = Rand3DElastic(
        sigma_range=(15.0 / spacing, 20.0 / spacing),
        # an unfiltered field smoothed by sigma voxels keeps about sigma**-1.5 of its amplitude: this asks for some 3 mm
        magnitude_range=tuple(35.0 * mm / spacing * (15.0 / spacing) ** 1.5 / 5.0 for mm in (2.0, 4.0)),
        rotate_range=(np.pi / 18,) * 3,
        translate_range=(6.0 / spacing,) * 3,
        scale_range=(0.1,) * 3,
        prob=1.0,
        padding_mode="zeros",
    )
    warp.set_random_state(seed=seed)
    warped = np.clip(np.asarray(warp(template)), 0, 1)
    t1, tissues, ventricles = warped[0], warped[1:6], warped[6]
    head = tissues.sum(axis=0)

    # MRI: the template's own T1 inside the brain, tissue means outside of it
    inside = tissues[1] + tissues[2]
    mr = inside * t1 + np.tensordot(_T1[[0, 3, 4]], tissues[[0, 3, 4]], axes=1)
    look = Compose(
        [
            RandAdjustContrast(prob=1.0, gamma=(0.7, 1.4)),
            RandBiasField(degree=3, coeff_range=(0.0, 0.12), prob=1.0),
            RandRicianNoise(prob=1.0, std=0.03, sample_std=True),
        ]
    )
    look.set_random_state(seed=seed)
    mr = np.asarray(look(mr[None].astype(np.float32)))[0] * random.uniform(300, 1500)

    # CT: Hounsfield units by tissue, blurred by the scanner, with its noise
    ct = np.tensordot(_HOUNSFIELD, tissues, axes=1) + np.clip(1 - head, 0, 1) * _AIR_HU
    ct = ndimage.gaussian_filter(ct, 0.4) + random.normal(0.0, random.uniform(2.0, 5.0), ct.shape)
    label = np.where(ventricles > 0.5, 2, np.where(inside > 0.5, 1, 0))
    return {
        "ct": np.clip(np.rint(ct), -1024, 3071).astype(np.int16),
        "mr": np.clip(np.rint(mr), 0, 32767).astype(np.int16),
        "label": label.astype(np.uint8),
        "mask": (head > 0.5).astype(np.uint8),
    }


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write_task(folder: Path, modality: str, patients: list[str]) -> None:
    entries = [{"image": f"./imagesTr/{p}.nii.gz", "label": f"./labelsTr/{p}.nii.gz"} for p in patients]
    content = {
        "name": folder.name.split("_", 1)[1],
        "description": NOTICE,
        "demonstration": True,
        "reference": "MNI152 template in nilearn; simulated",
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {str(value): name for value, name in DEMO_LABELS.items()},
        "numTraining": len(entries),
        "numTest": 0,
        "training": entries,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def make_demo_cohort(
    output_dir: str | os.PathLike, subjects: int = 16, seed: int = 0, *, spacing: int = 3, num_folds: int = 5
) -> dict[str, str]:
    """Write the demo cohort in the layouts of SynthRAD and of the Medical Segmentation Decathlon.

    ``Task60_DemoCT`` and ``Task61_DemoMR`` hold all subjects, under the same names in both; ``SynthRAD`` holds those
    outside fold 0 of ``split_folds(items, num_folds, seed=0)``, so that the patients a fine-tuned model is tested on
    (fold 0) were not seen in pre-training either. CT and MRI of a subject share one grid, in RAS orientation.

    Args:
        output_dir: folder to make. Safe to call again: a finished cohort with the same settings is left as it is.
        subjects: number of subjects.
        seed: seed of the whole cohort; the same seed gives the same files.
        spacing: voxel size in whole mm.
        num_folds: number of folds of the split above.

    Returns:
        Absolute paths: ``synthrad``, ``ct_task``, ``mr_task``.

    Raises:
        ImportError: if nilearn (extra ``demo``) is not installed.
        FileExistsError: if the folder holds something else.
        ValueError: if there are fewer subjects than folds, or the spacing is not between 1 and 5 mm.
    """
    if not 1 <= spacing <= 5:
        raise ValueError(f"spacing={spacing}: expected 1 to 5 mm")
    patients = [f"demo_{number:03d}" for number in range(1, subjects + 1)]
    folds = assign_folds(patients, num_folds, seed=0)
    target = Path(output_dir).expanduser().absolute()
    settings = {"subjects": subjects, "seed": seed, "spacing": spacing, "num_folds": num_folds}
    record = target / "demo.json"
    paths = {
        "synthrad": str(target / "SynthRAD"),
        "ct_task": str(target / "Task60_DemoCT"),
        "mr_task": str(target / "Task61_DemoMR"),
    }
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("settings") == settings:
        return paths
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"'{target}' holds something else than a demo cohort of {settings}: choose another folder"
        )

    template, affine = _template(spacing)
    # written beside the target and moved in one step, so that a cohort is either whole or absent
    draft = target.parent / f".{target.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    for number, patient in enumerate(patients):
        volumes = _simulate(template, spacing, seed=1000 * seed + number)
        for task, modality in (("Task60_DemoCT", "ct"), ("Task61_DemoMR", "mr")):
            _save(volumes[modality], affine, draft / task / "imagesTr" / f"{patient}.nii.gz")
            _save(volumes["label"], affine, draft / task / "labelsTr" / f"{patient}.nii.gz")
        if folds[patient] != 0:
            for name in ("ct", "mr", "mask"):
                _save(volumes[name], affine, draft / "SynthRAD" / "Task1" / "brain" / patient / f"{name}.nii.gz")
    _write_task(draft / "Task60_DemoCT", "CT", patients)
    _write_task(draft / "Task61_DemoMR", "MRI", patients)
    (draft / "README.txt").write_text(NOTICE + "\n", encoding="utf-8")
    (draft / "demo.json").write_text(json.dumps({"notice": NOTICE, "settings": settings}, indent=1), encoding="utf-8")
    os.replace(draft, target)
    return paths


if __name__ == "__main__":
    short_errors()
    fire.Fire(make_demo_cohort)
