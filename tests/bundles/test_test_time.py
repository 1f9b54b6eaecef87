"""What model.json says for test time is done by every bundle that uses the model, and a setting switches it off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from scipy import ndimage

from ..models import write_model

Run = Callable[..., ConfigWorkflow]
HISTOGRAM = np.linspace(0.1, 0.9, 101).round(4).tolist()
TEST_TIME: dict[str, Any] = {"histogram": [HISTOGRAM], "largest_component": [1]}
OFF: dict[str, Any] = {"match_histogram": False, "largest_component": []}


@pytest.fixture
def scan(swinfuse_data: Path, tmp_path: Path) -> Path:
    """A part of a real MRI of the abdomen, with the liver, as a task of one case."""
    source = swinfuse_data / "MSD_like" / "Task64_AbdomenMR"
    task = tmp_path / "Task64_AbdomenMR"
    name = sorted((source / "imagesTr").glob("*.nii.gz"))[0].name
    for folder in ("imagesTr", "labelsTr"):
        volume = nibabel.load(source / folder / name).slicer[60:180, 60:180, 8:24]
        (task / folder).mkdir(parents=True)
        array = np.asarray(volume.dataobj)
        array = array if folder == "imagesTr" else (array == 1).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(array, volume.affine), task / folder / name)
    content = {"name": "AbdomenMR", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "liver"}}
    entry = {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
    (task / "dataset.json").write_text(json.dumps({**content, "training": [entry]}), encoding="utf-8")
    return task


def largest_component(labels: np.ndarray) -> np.ndarray:
    components, _ = ndimage.label(labels == 1, np.ones((3, 3, 3)))
    return components == np.bincount(components.ravel())[1:].argmax() + 1


@pytest.fixture
def answer(run_bundle: Run, scan: Path, tmp_path: Path) -> Callable[..., np.ndarray]:
    """The label map of the scan, by the inference of a bundle with one model and some settings."""
    model = write_model(tmp_path / "model", **TEST_TIME)

    def infer(name: str, bundle: str = "finetune_msd", **settings: Any) -> np.ndarray:
        output = tmp_path / name
        model_folder = {"model_dir" if bundle == "ood_eval" else "run_dir": str(model)}
        files = ["inference.json"] if bundle == "ood_eval" else ["inference.json", "mr.yaml"]
        paths = {"dataset_dir": str(scan / "imagesTr"), "output_dir": str(output), **model_folder}
        run_bundle(bundle, files, "inference", overlap=0.0, **paths, **settings)
        (file,) = output.glob("*_seg.nii.gz")
        return np.asarray(nibabel.load(file).dataobj)

    return infer


def test_inference_follows_the_description_in_both_bundles(answer: Callable[..., np.ndarray]) -> None:
    default = answer("default")
    matched = answer("matched", largest_component=[])
    components = ndimage.label(matched == 1, np.ones((3, 3, 3)))[1]
    assert components > 1, "the test needs a network that answers with several components"
    assert np.array_equal(default == 1, largest_component(matched))
    assert not np.array_equal(matched, answer("plain", **OFF))
    assert np.array_equal(default, answer("ood", "ood_eval"))
    quick = answer("quick", precision="bfloat16")
    assert np.mean(quick == default) > 0.98 and np.array_equal(
        quick, answer("ood_quick", "ood_eval", precision="bfloat16")
    )
    adapted = answer("adapted", adapt_rounds=1)
    assert not np.array_equal(adapted, default) and np.array_equal(adapted, answer("ood_2", "ood_eval", adapt_rounds=1))


@pytest.mark.slow
def test_openvino_gives_the_same_labels(
    answer: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install swinfuse-components[export]")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    default, other = answer("default"), answer("openvino", backend="openvino")
    assert np.mean(other == default) > 0.999
    assert np.array_equal(other, answer("ood_openvino", "ood_eval", backend="openvino"))


def test_both_evaluations_follow_the_description(run_bundle: Run, scan: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", labels={"0": "background", "1": "liver"}, **TEST_TIME)

    def answer(bundle: str, files: list[str], **settings: Any) -> np.ndarray:
        output = tmp_path / f"{bundle}_{len(settings)}"
        folders = {"dataset_dir": str(scan), "output_dir": str(output)}
        run_bundle(bundle, files, "evaluating", overlap=0.0, **folders, **settings)
        (file,) = output.rglob("*.nii.gz")
        return np.asarray(nibabel.load(file).dataobj)

    def both(**settings: Any) -> tuple[np.ndarray, np.ndarray]:
        in_matrix = answer("ood_eval", ["evaluate.json"], model_dir=str(model), reference=False, **settings)
        options = {"run_dir": str(model), "modality": "mr", "num_workers": 0, "save_predictions": True}
        files = ["train.json", "evaluate.json", "all_cases.yaml"]
        return in_matrix, answer("finetune_msd", files, **options, **settings)

    (default, same), (plain, same_plain) = both(), both(**OFF)
    assert np.array_equal(default, same) and np.array_equal(plain, same_plain)
    assert default.any() and not np.array_equal(default, plain)
