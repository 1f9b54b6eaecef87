"""A real MONAI Label server, asked over REST, must answer what `monai.bundle run` answers.

Slow: its environment (about 3 GB) is made on the first run, by the script that users call; `scripts/test.sh --all` runs
it. SWINFUSE_LABEL_VENV names an environment to use or to make instead of ./.venv-label.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from .conftest import make_package

pytestmark = pytest.mark.slow
# making the environment takes minutes; a server that has one is up in seconds
START_SECONDS = 1500
SESSION = {"pretrained": True, "device": "cpu", "max_epochs": 1, "val_split": 0.34, "multi_gpu": False}
UNLOADED = "Checkpoint keys don't match"


class Server:
    def __init__(self, port: int, log: Path) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.log = log

    def ask(self, path: str, body: dict | None = None, method: str = "POST") -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=1500) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code}\n{self.text()[-4000:]}") from error

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def segment(self, bundle: str, image: str, path: Path, **chosen: object) -> nib.Nifti1Image:
        request = urllib.request.Request(
            f"{self.address}/infer/{bundle}?image={image}&output=image",
            urllib.parse.urlencode({"params": json.dumps(chosen)}).encode(),
        )
        with urllib.request.urlopen(request, timeout=1500) as answer:
            path.write_bytes(answer.read())
        return nib.load(path)

    def models(self) -> dict:
        return json.loads(self.ask("/info/", method="GET"))["models"]

    def train_here(self, bundle: str) -> None:
        """A session in the server's own process."""
        self.ask(f"/train/{bundle}?run_sync=true", SESSION)

    def train(self, bundle: str) -> None:
        """A session in a process of its own, as clients start it."""
        self.ask(f"/train/{bundle}", SESSION)
        end = time.monotonic() + START_SECONDS
        while (task := json.loads(self.ask("/train/", method="GET")))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, task
            time.sleep(1)
        assert task["status"] == "DONE", self.text()[-4000:]

    def check_weights(self) -> None:
        text = self.text()
        assert UNLOADED not in text, "the server answers from weights that were not all loaded"
        assert "model.pt" in text, "the log names no weights"


@contextmanager
def serve(repository: Path, bundles: Path | list[Path], images: Path, scratch: Path, *options: str) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = scratch / f"server_{port}.log"
    environment = os.environ | {"HOME": str(scratch)}
    environment.pop("VENV", None)
    if "SWINFUSE_LABEL_VENV" in os.environ:
        environment["VENV"] = os.environ["SWINFUSE_LABEL_VENV"]
    places = map(str, [*(bundles if isinstance(bundles, list) else [bundles]), images])
    command = [str(repository / "scripts" / "label_server.sh"), *places, "--port", str(port)]
    command += ["--app", str(scratch / f"app_{port}"), *options]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = Server(port, log)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/info/", timeout=10).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, f"the server stopped:\n{server.text()[-4000:]}"
                assert time.monotonic() < end, f"no answer:\n{server.text()[-4000:]}"
                time.sleep(1)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def run_bundle(folder: Path, data: Path, output: Path) -> nib.Nifti1Image:
    """The reference: the same package on the same file, from the command line."""
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(data), "--output_dir", str(output)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = output.rglob("*seg*.nii.gz")
    return nib.load(file)


@pytest.fixture
def studies(swinfuse_data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Real images for the server: an MRI of the hippocampus, or four channels of a brain tumour in one file."""

    def make(bundle: str) -> Path:
        folder = tmp_path / f"studies_{bundle}"
        labels = folder / "labels" / "final"
        labels.mkdir(parents=True)
        if bundle == "finetune_msd":
            source = swinfuse_data / "MSD_like" / "Task04_Hippocampus"
            for number, image in enumerate(sorted((source / "imagesTr").glob("hippocampus_*.nii.gz"))[:3]):
                shutil.copy(image, folder / f"case_{number}.nii.gz")
                shutil.copy(source / "labelsTr" / image.name, labels / f"case_{number}.nii.gz")
        else:
            cases = sorted((swinfuse_data / "BraTS21_like").glob("BraTS2021_*"))
            for number, case in enumerate(cases):
                parts = [nib.load(case / f"{case.name}_{name}.nii.gz") for name in ("flair", "t1ce", "t1", "t2")]
                middle = tuple(slice(size // 2 - 32, size // 2 + 32) for size in parts[0].shape)
                values = np.stack([np.asarray(part.dataobj)[middle] for part in parts], -1)
                nib.save(nib.Nifti1Image(values, parts[0].affine), folder / f"case_{number}.nii.gz")
                truth = nib.load(case / f"{case.name}_seg.nii.gz")
                mask = nib.Nifti1Image(np.asarray(truth.dataobj)[middle], truth.affine)
                nib.save(mask, labels / f"case_{number}.nii.gz")
        return folder

    return make


@pytest.mark.parametrize("kind", ["vendored", "installed"])
@pytest.mark.parametrize("bundle", ["finetune_msd", "finetune_brats"])
def test_server_segments_as_the_command_line_does_and_trains(
    repository: Path,
    package: Callable[[str], Path],
    installed_package: Callable[[str], Path],
    studies: Callable[[str], Path],
    bundle: str,
    kind: str,
    tmp_path: Path,
) -> None:
    folder = package(bundle).parent / bundle if kind == "vendored" else installed_package(bundle)
    images = studies(bundle)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(images / "case_0.nii.gz", alone)
    expected = run_bundle(folder, alone, tmp_path / "command_line")
    with serve(repository, folder, images, tmp_path) as server:
        answer = server.segment(bundle, "case_0", tmp_path / "answer.nii.gz")
        server.check_weights()
        image = nib.load(images / "case_0.nii.gz")
        assert answer.shape == image.shape[:3]
        np.testing.assert_allclose(answer.affine, image.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(answer.dataobj), np.asarray(expected.dataobj))
        assert len(np.unique(np.asarray(answer.dataobj))) > 1, "one label everywhere: any weights would agree"

        weights = next((tmp_path).glob(f"app_*/model/{bundle}/models/model.pt"))
        # in the server's own process, in another one, and again
        for sessions, train in enumerate((server.train_here, server.train, server.train_here), 1):
            before = weights.read_bytes()
            train(bundle)
            assert server.text().count("Training Finished") == sessions
            server.check_weights()
            assert weights.read_bytes() != before, "training left no new weights"
    assert (folder / "models" / "model.pt").read_bytes() == (
        package(bundle).parent / bundle / "models" / "model.pt"
    ).read_bytes(), "training in the server changed the package"


def test_wrong_weights_are_noticed(
    repository: Path, package: Callable[[str], Path], studies: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(package("finetune_msd").parent / "finetune_msd", tmp_path / "finetune_msd"))
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "models" / "model.pt")
    with serve(repository, folder, studies("finetune_msd"), tmp_path) as server:
        server.segment("finetune_msd", "case_0", tmp_path / "answer.nii.gz")  # the server itself sees nothing amiss
        with pytest.raises(AssertionError, match="not all loaded"):
            server.check_weights()


def test_training_in_the_server_starts_from_a_pre_training_checkpoint(
    repository: Path, package: Callable[[str], Path], studies: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = package("pretrain").parents[1] / "weights" / "pretrain" / "model.pt"
    images = studies("finetune_msd")
    folder = package("finetune_msd").parent / "finetune_msd"
    with serve(repository, folder, images, tmp_path, "--pretrained", str(checkpoint)) as server:
        server.train_here("finetune_msd")
        log = server.log.read_text(encoding="utf-8")
        assert "Training Finished" in log
        assert str(checkpoint) in log, "the log does not name the checkpoint that training starts from"
    # a server that began without weights segments only after a new start; what it will read is there
    (weights,) = tmp_path.glob("app_*/model/finetune_msd/models/model.pt")
    assert (
        torch.load(weights, weights_only=True)["model"].keys()
        == torch.load(folder / "models" / "model.pt", weights_only=True).keys()
    )


def test_two_bundles_in_one_server(
    repository: Path, package: Callable[[str], Path], studies: Callable[[str], Path], tmp_path: Path
) -> None:
    folders = [package(bundle).parent / bundle for bundle in ("finetune_msd", "finetune_brats")]
    # who the weights were trained on
    folders[0] = Path(shutil.copytree(folders[0], tmp_path / "finetune_msd"))
    description = folders[0] / "models" / "model.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps(content | {"training_patients": ["earlier"]}), encoding="utf-8")
    images, tumours = studies("finetune_msd"), studies("finetune_brats")
    shutil.copy(tumours / "case_0.nii.gz", images / "tumour.nii.gz")
    with serve(repository, folders, images, tmp_path) as server:
        models = server.models()
        assert models["finetune_msd"]["labels"] == {"anterior": 1, "posterior": 2}
        tumour = {"necrotic tumour core": 1, "peritumoral oedema": 2, "enhancing tumour": 4}
        assert models["finetune_brats"]["labels"] == tumour
        shown = {"overlap": 0.5, "mirrored_averaging": False, "precision": ["float32", "bfloat16"]}
        assert shown.items() <= models["finetune_brats"]["config"].items()
        plain = server.segment("finetune_msd", "case_0", tmp_path / "plain.nii.gz")
        values = np.unique(server.segment("finetune_brats", "tumour", tmp_path / "tumour.nii.gz").dataobj)
        assert set(values) <= {0, 1, 2, 4} and len(values) > 1
        # another sum over mirrored copies, and the first answer again without them
        chosen = {"mirrored_averaging": True, "overlap": 0.25}
        mirrored = server.segment("finetune_msd", "case_0", tmp_path / "mirrored.nii.gz", **chosen)
        again = server.segment("finetune_msd", "case_0", tmp_path / "again.nii.gz")
        assert not np.array_equal(plain.dataobj, mirrored.dataobj)
        np.testing.assert_array_equal(plain.dataobj, again.dataobj)
        server.train("finetune_msd")
        server.check_weights()
    (model,) = tmp_path.glob("app_*/model/finetune_msd/models/model.json")
    known = set(json.loads(model.read_text(encoding="utf-8"))["training_patients"])
    assert "earlier" in known and len(known) == 3
    assert known < {"earlier", "case_0", "case_1", "case_2"}, "names of patients, without suffix"


def test_a_package_with_random_contrast_and_openvino(
    repository: Path, studies: Callable[[str], Path], tmp_path: Path
) -> None:
    """What overlays and settings put into a package is what the server trains and segments with."""
    environment = Path(os.environ.get("SWINFUSE_LABEL_VENV", repository / ".venv-label"))
    if not list(environment.glob("lib/python*/site-packages/openvino")):
        pytest.skip(f"openvino is not installed in {environment}, which the server's script makes")
    overlay = repository / "bundles" / "finetune_msd" / "configs" / "random_contrast.yaml"
    overlays, settings = [overlay], {"contrast_warmup": [0, 0], "contrast_prob": 1.0}
    plain = make_package(repository, "finetune_msd", tmp_path / "plain", overlays=overlays, settings=settings)
    settings |= {"backend": "openvino", "precision": "bfloat16"}
    quick = make_package(repository, "finetune_msd", tmp_path / "quick", overlays=overlays, settings=settings)
    images, answers, seconds = studies("finetune_msd"), {}, {}
    for name, archive in (("plain", plain), ("quick", quick)):
        (tmp_path / name / "server").mkdir()
        with serve(repository, archive.parent / "finetune_msd", images, tmp_path / name / "server") as server:
            server.segment("finetune_msd", "case_0", tmp_path / "first.nii.gz")
            precision, *_ = server.models()["finetune_msd"]["config"]["precision"]
            assert precision == ("bfloat16" if name == "quick" else "float32")
            start = time.perf_counter()
            answer = server.segment("finetune_msd", "case_0", tmp_path / f"{name}.nii.gz")
            seconds[name], answers[name] = time.perf_counter() - start, np.asarray(answer.dataobj)
            server.check_weights()
            server.train_here("finetune_msd")
        (record,) = tmp_path.glob(f"{name}/server/app_*/model/finetune_msd/models/model.json")
        assert len(json.loads(record.read_text(encoding="utf-8"))["histogram"][0]) > 2, "trained without the overlay"
    print("seconds of a segmentation:", seconds)
    assert np.mean(answers["quick"] == answers["plain"]) > 0.97
    assert list(tmp_path.glob("quick/server/.cache/torch/hub/openvino/*.xml")), "OpenVINO was not used"
