"""Segmenting and scoring where a disk is full, a file is broken, or weights are not what they should be."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from ..models import BRATS, write_model
from .conftest import configs, write_brats, write_msd_task
from .small_runs import command, message_of


def limit_files(size: int) -> Callable[[], None]:
    """No file may become larger, the log of the run among them."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Inference:
    """Three images and a model with random weights for the inference of a bundle."""

    def __init__(self, bundle: str, root: Path) -> None:
        self.root, self.files = root, [Path(*configs(bundle, "inference.json"))]
        if bundle == "finetune_brats":
            self.images = write_brats(root / "images", cases=3)
            self.model = write_model(root / "model", **BRATS)
        else:
            self.images = write_msd_task(root, "Task", ("MRI",), ("box",), cases=3) / "imagesTr"
            self.model = write_model(root / "model", modality="mr")
        self.key = "model_dir" if bundle == "ood_eval" else "run_dir"

    def run(self, output: Path, in_child: Callable[[], Any] | None = None, **options: Any) -> Any:
        paths = {"dataset_dir": self.images, self.key: self.model, "output_dir": output}
        log = output.with_suffix(".log")
        options = {"overlap": 0.0, "device": "$torch.device('cpu')", **paths, **options}
        return command(log, "inference", *self.files, in_child=in_child, **options)


@pytest.fixture(params=["finetune_msd", pytest.param("finetune_brats", marks=pytest.mark.slow), "ood_eval"])
def inference(request: pytest.FixtureRequest, tmp_path: Path) -> Inference:
    return Inference(request.param, tmp_path)


@pytest.mark.parametrize("ext", [".nii", ".mha"])  # 43 200 bytes and more
def test_a_label_map_that_does_not_fit_is_named_and_none_is_cut_short(
    inference: Inference, tmp_path: Path, ext: str
) -> None:
    output = tmp_path / "out"
    message = message_of(inference.run(output, limit_files(40000), output_ext=ext))
    assert f"cannot write {output}/" in message and f"_seg{ext}: " in message
    assert not output.exists() or not list(output.iterdir())


def test_a_broken_image_of_three_is_reported_and_the_others_are_done(inference: Inference, tmp_path: Path) -> None:
    broken = sorted(inference.images.rglob("*.nii.gz"))[0]
    broken.write_bytes(broken.read_bytes()[:-2000])
    run = inference.run(tmp_path / "out")
    message = message_of(run)
    assert "1 of 3 images could not be used" in message and broken.name in message
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2
    assert f"fatal: {broken}" in run.log.read_text(encoding="utf-8")
    assert "1 fatal finding" in message_of(inference.run(tmp_path / "strict", strict=True))
    assert not (tmp_path / "strict").exists()


def test_stopped_in_the_middle_it_ends_with_code_75_and_is_done_by_the_same_command(
    inference: Inference, tmp_path: Path
) -> None:
    """Ctrl-C goes to the workers too."""

    def wait_behind_the_first() -> None:
        os.setpgrp()
        replace = os.replace

        def replace_and_wait(*paths: Any) -> None:
            replace(*paths)
            if str(paths[1]).endswith("_seg.nii.gz"):
                time.sleep(600)

        os.replace = replace_and_wait

    run = inference.run(tmp_path / "out", wait_behind_the_first, num_workers=1)
    end = time.monotonic() + 300
    while not list((tmp_path / "out").glob("*_seg.nii.gz")) and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(run.process.pid or 0, signal.SIGINT)
    log = run.finish(75)
    assert "stopped by SIGINT: what is finished stays" in log and "Traceback" not in log
    inference.run(tmp_path / "out").finish()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 3 and not list((tmp_path / "out").glob(".*"))


def test_an_image_that_breaks_after_the_check_is_one_sentence(inference: Inference, tmp_path: Path) -> None:
    def break_the_last() -> None:
        replace, last = os.replace, sorted(inference.images.rglob("*.nii.gz"))[-1]

        def replace_and_break(*paths: Any) -> None:
            last.write_bytes(last.read_bytes()[:300])
            replace(*paths)

        os.replace = replace_and_break

    assert "cannot read an image: " in message_of(inference.run(tmp_path / "out", break_the_last))
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


def killed_before_the_first_name() -> None:
    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = kill


def test_what_a_killed_run_left_is_removed_and_volumes_of_other_images_are_kept(
    inference: Inference, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    inference.run(output, killed_before_the_first_name).finish(-signal.SIGKILL)
    assert len(list(output.glob(".*"))) == 1
    inference.run(output).finish()
    assert not list(output.glob(".*"))
    if not (output / "volumes.csv").exists():  # ood_eval has none
        return
    before = (output / "volumes.csv").read_bytes()
    for path in sorted(inference.images.glob("*"))[1:]:  # a second call, for one image
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "volumes.csv was there already" in inference.run(output).finish()
    assert (output / "volumes.csv.previous").read_bytes() == before


def ensemble(inference: Inference, *folders: str) -> dict[str, Any]:
    for folder, modality in (("fold0", "ct"), ("mr", "mr")):
        write_model(inference.root / folder, modality=modality)
    inference.files.append(inference.files[0].with_name("ensemble.yaml"))
    return {"model_dirs": [str(inference.root / folder) for folder in folders]}


def weights(spoil: Callable[[Path], Any]) -> Callable[[Inference], None]:
    return lambda inference: spoil(inference.model / "model.pt") and None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_size(path: Path) -> None:
    write_model(path.parent / "other", feature_size=24)
    shutil.copy(path.parent / "other" / "model.pt", path)


def times(factor: complex) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = torch.load(path, weights_only=True)["model"]
        torch.save({"model": {key: value * factor for key, value in content.items()}}, path)

    return spoil


ODD: dict[str, Any] = {
    "spacing": [0, 0, 0],
    "labels": {"0": "a", "1": "a"},
    "modality": None,
    "roi_size": "big",
    "network_options": None,
    "largest_component": "box",
    "channels": [],
    "feature_size": True,
}


def odd_description(inference: Inference) -> None:
    path = inference.model / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **ODD}), encoding="utf-8")


# settings, or what is done to the model and may return settings; and words of the message
REFUSED: dict[str, tuple[Any, list[str]]] = {
    "a name out of the folder": ({"output_postfix": "../../seg"}, ["output_postfix is '../../seg'"]),
    "no data set": ({"dataset_dir": ""}, ["dataset_dir is '': expected a path"]),
    "a number for a data set": ({"dataset_dir": 5}, ["dataset_dir is 5: expected a path"]),
    "a device without values": ({"device": "meta"}, ["device is meta"]),
    "no member": (ensemble, ["an ensemble needs at least one model folder"]),
    "a member twice": (lambda i: ensemble(i, "fold0", "fold0"), ["an ensemble needs different models"]),
    "no such member": (lambda i: ensemble(i, "fold0", "fold2"), ["fold2 the folder of a finished training?"]),
    "members for two modalities": (lambda i: ensemble(i, "fold0", "mr"), ["models that differ in 'modality' cannot"]),
    "missing weights": (weights(Path.unlink), ["no such checkpoint file"]),
    "empty weights": (weights(lambda path: path.write_bytes(b"")), ["is empty"]),
    "truncated weights": (weights(lambda path: path.write_bytes(path.read_bytes()[:-5000])), ["truncated or damaged"]),
    "weights with a flipped bit": (weights(flip_a_bit), ["the checksum of its part"]),
    "weights of another size": (weights(of_another_size), ["does not fit the network"]),
    "NaN": (weights(times(float("nan"))), ["hold NaN or infinity"]),
    "complex numbers": (weights(times(1j)), ["or are complex"]),
    "a description of odd values": (odd_description, ["model.json", *(f"{key} is " for key in ODD)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_an_image_is_read(tmp_path: Path, name: str) -> None:
    """One image is broken too, which nobody must have noticed."""
    change, expected = REFUSED[name]
    inference = Inference("finetune_msd", tmp_path)
    options = change if isinstance(change, dict) else change(inference) or {}
    next(inference.images.iterdir()).write_bytes(b"")
    run = inference.run(tmp_path / "out", **options)
    message = message_of(run)
    assert all(words in message for words in expected), message
    assert "0 bytes" not in run.log.read_text(encoding="utf-8")
    assert not (tmp_path / "out").exists()


MATRIX: dict[str, tuple[dict[str, Any], str]] = {
    "data that nobody was trained on": (
        {"in_distribution": {"Boxes": "Task"}},
        "in_distribution has 'Boxes' and 'Task'",
    ),
    "one model twice": ({"models": "['model', 'model']"}, "two models are called"),
    "no such test": ({"test": "t-test"}, "test is 't-test'"),
}


@pytest.mark.parametrize("name", MATRIX)
def test_what_does_not_fit_is_said_before_anything_is_scored(tmp_path: Path, name: str) -> None:
    changes, expected = MATRIX[name]
    task = write_msd_task(tmp_path, "Task", ("MRI",), ("box",), cases=2)
    model = write_model(tmp_path / "model", modality="mr")
    options = {"dataset_dir": task, "model_dir": model, "output_dir": tmp_path / "out", **changes}
    config = Path(*configs("ood_eval", "evaluate.json"))
    run = command(tmp_path / "log", "evaluating", config, in_child=lambda: os.chdir(tmp_path), **options)
    assert expected in message_of(run) and not (tmp_path / "out").exists()


def test_scores_and_predictions_of_the_matrix_are_whole_too(tmp_path: Path) -> None:
    task = write_msd_task(tmp_path, "Task", ("MRI",), ("box",), cases=2)
    model, output = write_model(tmp_path / "model", modality="mr"), tmp_path / "out"
    options = {"dataset_dir": task, "model_dir": model, "output_dir": output, "overlap": 0.0}
    config = Path(*configs("ood_eval", "evaluate.json"))
    full = command(tmp_path / "full.log", "evaluating", config, in_child=limit_files(3500), **options)
    assert "cannot write" in message_of(full)
    assert not list(output.rglob("*.nii.gz"))
    command(tmp_path / "again.log", "evaluating", config, **options).finish()
    assert [np.asarray(nib.load(path).dataobj).shape for path in output.rglob("*.nii.gz")] == [(40, 36, 30)] * 2
