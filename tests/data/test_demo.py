"""The demo cohort: what it promises, at a coarse grid."""

import json
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from swinfuse_components.data import (
    find_problems,
    load_fold,
    msd_datalist,
    read_msd_task,
    split_folds,
    synthrad_datalist,
)

pytest.importorskip("nilearn", reason="nilearn carries the template of the demo cohort")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo_cohort.py"
make = runpy.run_path(str(SCRIPT))["make_demo_cohort"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Six subjects of 4 mm."""
    return make(tmp_path_factory.mktemp("demo") / "cohort", subjects=6, spacing=4)


def voxels(path: str) -> np.ndarray:
    """The array of a file."""
    return np.asarray(nib.load(path).dataobj)


def test_layouts_are_read_and_pass_the_check(cohort):
    ct, mr = (read_msd_task(cohort[key]) for key in ("ct_task", "mr_task"))
    assert (ct.modality, mr.modality, ct.labels) == ("ct", "mr", mr.labels)
    assert ct.demonstration and mr.demonstration
    assert find_problems(msd_datalist(cohort["ct_task"]), labels=ct.labels) == []
    assert find_problems(msd_datalist(cohort["mr_task"]), labels=mr.labels) == []
    assert find_problems(synthrad_datalist(cohort["synthrad"])) == []
    assert "not evidence" in json.loads(Path(cohort["ct_task"], "dataset.json").read_bytes())["description"]


def test_patients_of_fold_0_are_not_pretrained_on(cohort):
    folds = split_folds(msd_datalist(cohort["mr_task"]))
    pretrained = {item["patient"] for item in synthrad_datalist(cohort["synthrad"])}
    assert pretrained == {item["patient"] for item in load_fold(folds, 0)}
    assert not pretrained & {item["patient"] for item in load_fold(folds, 0, "validation")}


def test_ct_is_in_hounsfield_units_with_small_inverted_contrast(cohort):
    for item, other in zip(msd_datalist(cohort["ct_task"]), msd_datalist(cohort["mr_task"])):
        ct, mr, label = voxels(item["image"]), voxels(other["image"]), voxels(item["label"])
        assert np.array_equal(label, voxels(other["label"]))
        assert set(np.unique(label)) == {0, 1, 2}
        brain, ventricles = np.median(ct[label == 1]), np.median(ct[label == 2])
        assert 25 < brain < 45 and 0 < ventricles < brain - 8
        assert abs(np.median(ct[0]) + 1000) < 20 and ct.max() > 600
        # on T1 MRI the bright half of the brain is white matter, which on CT is the less dense one
        inner = label == 1
        white = inner & (mr > np.percentile(mr[inner], 80))
        grey = inner & (mr < np.percentile(mr[inner], 40)) & (mr > np.percentile(mr[inner], 20))
        assert 2 < np.median(ct[grey]) - np.median(ct[white]) < 15


def test_it_is_reproducible_and_safe_to_run_twice(cohort, tmp_path):
    again = make(tmp_path / "again", subjects=6, spacing=4)
    for item, other in zip(msd_datalist(cohort["mr_task"]), msd_datalist(again["mr_task"])):
        assert np.array_equal(voxels(item["image"]), voxels(other["image"]))
    assert make(tmp_path / "again", subjects=6, spacing=4) == again
    with pytest.raises(FileExistsError, match="something else"):
        make(tmp_path / "again", subjects=7, spacing=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(FileExistsError):
        make(tmp_path / "mine", subjects=6, spacing=4)
    with pytest.raises(ValueError, match="spacing"):
        make(tmp_path / "fine", spacing=0)
    with pytest.raises(ValueError, match="5 folds of 3"):
        make(tmp_path / "few", subjects=3)
