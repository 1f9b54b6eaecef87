"""Preprocessed volumes on disk: keys that notice changes, files that cannot run code; the record of a check."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, CropForegroundd, Lambdad, LoadImaged, Orientationd, RandSpatialCropd, Spacingd

from swinfuse_components.data import DiskCacheDataset, checks, find_problems, item_key, register_modality, transform_key
from swinfuse_components.data.modalities import REGISTRY
from swinfuse_components.transforms import ModalityIntensityd

from .conftest import ct_volume, write_volume


def transforms(spacing: float = 2.0, window: tuple[float, float] = (-100, 300), offset: int = 1, mode="bilinear"):
    return [
        LoadImaged("image", image_only=True, ensure_channel_first=True),
        Orientationd("image", "RAS", labels=None),
        Spacingd("image", (spacing,) * 3, mode=mode),
        ModalityIntensityd("image", ct_window=window),
        Lambdad("image", lambda image: image + offset),
        CropForegroundd("image", source_key="image", allow_smaller=True),
    ]


def test_every_setting_of_a_transform_counts() -> None:
    changes = [{}, {"spacing": 2.5}, {"window": (-100, 301)}, {"offset": 2}, {"mode": "nearest"}]
    keys = [transform_key(transforms(**change)) for change in changes]
    assert len(set(keys)) == len(keys)
    assert transform_key(transforms()) == keys[0]
    assert transform_key(transforms()[::-1]) != keys[0]


@pytest.mark.slow
def test_keys_are_the_same_in_another_process(repository: Path) -> None:
    code = "from tests.data.test_caching import *; print(transform_key(transforms()).decode())"
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONHASHSEED": "7"}
    run = [sys.executable, "-W", "ignore", "-c", code]
    found = subprocess.run(run, env=environment, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert found.split()[-1] == transform_key(transforms()).decode()


def test_a_changed_file_entry_or_modality_is_another_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "oct", None)
    register_modality("oct", limits=(1, 99))
    item = {"image": str(write_volume(tmp_path / "a.nii.gz", ct_volume())), "modality": "oct"}
    keys = [item_key(item), item_key({**item, "patient": "a"})]
    register_modality("oct", limits=(2, 98))
    keys.append(item_key(item))
    write_volume(tmp_path / "a.nii.gz", ct_volume(1))
    keys.append(item_key(item))
    folder = {"image": str(tmp_path)}
    keys.append(item_key(folder))
    write_volume(tmp_path / "b.nii.gz", ct_volume(1))
    keys.append(item_key(folder))
    assert len(set(keys)) == len(keys) and item_key(folder) == keys[-1]


class Planted:
    """What runs code when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return open, (self.marker, "w")


@pytest.mark.filterwarnings("ignore:Corrupt cache file")
def test_what_comes_from_the_disk_is_what_was_computed_and_never_code(tmp_path: Path) -> None:
    items = [{"image": str(write_volume(tmp_path / f"{n}.nii.gz", ct_volume(n))), "modality": "ct"} for n in range(2)]
    chain = Compose([*transforms(), RandSpatialCropd("image", 4, random_size=False)])
    plain, cached = Dataset(items, chain), DiskCacheDataset(items, chain, tmp_path / "cache")

    def same() -> bool:
        results = []
        for dataset in (plain, cached):
            chain.set_random_state(3)
            results.append([dataset[0]["image"], dataset[1]["image"]])
        return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*results))

    assert same() and len(list((tmp_path / "cache").iterdir())) == 2 and same()
    first, second = sorted((tmp_path / "cache").iterdir())
    assert type(torch.load(first, weights_only=True)["image"]) is torch.Tensor
    marker = tmp_path / "ran"
    first.write_bytes(pickle.dumps(Planted(str(marker))))
    torch.save({"image": Planted(str(marker))}, second)
    assert same() and not marker.exists()
    for file in (first, second):  # a run was killed while it wrote
        file.write_bytes(file.read_bytes()[:-300])
    assert same() and same()
    first.write_bytes(b"")
    assert same()


def test_a_check_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [ct_volume(n) for n in range(4)] + [np.zeros((12, 10, 8), np.int16)]
    files = [write_volume(tmp_path / f"{number}.nii.gz", volume) for number, volume in enumerate(volumes)]
    items = [{"image": str(file), "modality": "ct"} for file in files]
    opened: list[str] = []
    open_volume = checks.open_volume
    monkeypatch.setattr(checks, "open_volume", lambda path: opened.append(path) or open_volume(path))
    record = tmp_path / "checked.jsonl"
    expected = find_problems(items)
    opened.clear()
    assert find_problems(items[:3], record=record) == [] and len(opened) == 3
    with record.open("a", encoding="utf-8") as stream:
        stream.write('\n["half a li')
    opened.clear()
    assert find_problems(items, record=record) == expected and len(opened) == 2
    opened.clear()
    write_volume(files[0], ct_volume(9))
    assert find_problems(items, record=record) == expected and opened == [str(files[0])]
    opened.clear()
    find_problems(items, record=record, roi_size=64)
    assert len(opened) == 5
