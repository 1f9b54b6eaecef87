"""Splits by patient, fold files, and how often a modality is drawn."""

import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinfuse_components.data import (
    load_fold,
    load_folds,
    msd_datalist,
    sampling_weights,
    save_folds,
    select_patients,
    split_folds,
    split_patients,
)

CT_AND_MR = [{"modality": "ct"}, {"modality": "mr"}]


def made_items(images_of_patient: list[int]) -> list[dict]:
    """A data list in which patient k has so many images."""
    return [
        {"image": f"/data/p{patient}_{number}.nii.gz", "patient": f"p{patient}"}
        for patient, count in enumerate(images_of_patient)
        for number in range(count)
    ]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=5, max_size=30), seed=st.integers(0, 2**31), num_folds=st.integers(2, 5)
)
def test_folds_partition_the_patients(counts, seed, num_folds):
    items = made_items(counts)
    folds = split_folds(items, num_folds, seed)
    sizes = Counter()
    for fold in range(num_folds):
        training, validation = (load_fold(folds, fold, section) for section in ("training", "validation"))
        assert len(training) + len(validation) == len(items)
        assert not {i["patient"] for i in training} & {i["patient"] for i in validation}
        sizes[fold] = len({i["patient"] for i in validation})
    assert sum(sizes.values()) == len(counts) and max(sizes.values()) - min(sizes.values()) <= 1
    assert split_folds(items, num_folds, seed) == folds


def test_order_of_the_list_does_not_matter_but_the_seed_does():
    items = made_items([1] * 20)
    by_patient = {i["patient"]: i["fold"] for i in split_folds(items, seed=1)}
    assert {i["patient"]: i["fold"] for i in split_folds(items[::-1], seed=1)} == by_patient
    assert {i["patient"]: i["fold"] for i in split_folds(items, seed=2)} != by_patient
    assert "fold" not in items[0]


def test_fold_file_round_trip_and_relative_paths(msd_folder, tmp_path):
    root = msd_folder(6)
    folds = split_folds(msd_datalist(root), 3)
    path = save_folds(folds, tmp_path / "out" / "folds.json", root)
    written = json.loads(path.read_text(encoding="utf-8"))["training"]
    assert written[0]["image"] == "imagesTr/case_00.nii.gz"
    assert load_folds(path, root=root) == folds


def test_a_users_own_fold_file(tmp_path):
    entries = [{"image": [f"a{k}.nii.gz", f"b{k}.nii.gz"], "label": f"l{k}.nii.gz", "fold": k % 2} for k in range(4)]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"training": entries}), encoding="utf-8")
    items = load_fold(load_folds(path), 0, "validation")
    assert [i["image"] for i in items] == [[str(tmp_path / f"{c}{k}.nii.gz") for c in "ab"] for k in (0, 2)]
    assert items[0]["patient"] == "a0"


def test_sequences_of_a_fold_file_are_put_into_the_order_of_the_channels(tmp_path):
    names = ("t1", "t1ce", "t2", "flair")
    entries = [{"image": [f"p/p_{name}.nii.gz" for name in names], "label": "p/p_seg.nii.gz", "fold": 0}]
    (tmp_path / "folds.json").write_text(json.dumps({"training": entries}), encoding="utf-8")

    def order(**options) -> list[str]:
        item = load_folds(tmp_path / "folds.json", **options)[0]
        return [path.rsplit("_", 1)[1].removesuffix(".nii.gz") for path in item["image"]]

    assert order() == ["flair", "t1ce", "t1", "t2"]
    assert order(channels=["T2", "FLAIR", "T1w", "T1gd"]) == ["t2", "flair", "t1", "t1ce"]
    assert order(channels=["T2", "ADC"]) == [*names]  # other channels: nothing is known of the order


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"training": []}', "no list 'training'"),
        ('{"training": [3]}', "not an entry"),
        ('{"training": [{"patient": "x", "fold": 0}]}', "not an entry"),
        ('{"training": [{"image": "../x.nii.gz", "fold": 0}]}', "refused"),
        ('{"training": [{"image": ["a", "/etc/passwd"], "fold": 0}]}', "refused"),
        ('{"training": [{"image": 7, "fold": 0}]}', "found int"),
        ('{"training": [{"image": "a"}, {"image": "b", "fold": 1}]}', "no integer 'fold'"),
        ('{"training": [{"image": "a", "fold": true}, {"image": "b", "fold": 1}]}', "no integer 'fold'"),
        ('{"training": [{"image": "a", "fold": 1}, {"image": "b", "fold": 2}]}', r"folds \[1, 2\]"),
        (
            '{"training": [{"image": "a", "fold": 0, "patient": "p"}, {"image": "b", "fold": 1, "patient": "p"}]}',
            r"\['p'\] would be on both sides",
        ),
    ],
)
def test_faulty_fold_files_are_named(content, message, tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_fold(load_folds(path), 0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda items: split_folds(items, 5), "5 folds of 3"),
        (lambda items: split_folds([{"image": "a"}], 2), "'patient' is missing"),
        (lambda items: split_folds(items, assignment={"p0": 0}), "no fold is assigned"),
        (lambda items: load_fold(split_folds(items, 3), 0, "test"), "section"),
        (lambda items: split_patients(items, validation_fraction=1.0), "validation_fraction"),
        (lambda items: split_patients(items, "test"), "section"),
        (lambda items: split_patients(items[:1]), "at least two"),
        (lambda items: select_patients(items, exclude=["p0", "p1", "p2"]), "no item is left"),
        (lambda items: select_patients(items, exclude=["p9"]), "is called 'p9': the 3 patients are called like 'p0'"),
        (lambda items: save_folds(split_folds(items, 3), "/tmp/f.json", "/tmp"), "leaves its data set's folder"),
        (lambda _: sampling_weights(CT_AND_MR, {"ct": 1}), "expected a number >= 0"),
        (lambda _: sampling_weights(CT_AND_MR, {"ct": -1, "mr": 1}), "expected a number >= 0"),
        (lambda _: sampling_weights(CT_AND_MR, {"ct": float("nan"), "mr": 1}), "expected a number >= 0"),
        (lambda _: sampling_weights(CT_AND_MR, {"ct": 0, "mr": 0}), "nothing is left"),
    ],
)
def test_errors_of_the_splits(split, message):
    with pytest.raises(ValueError, match=message):
        split(made_items([1, 1, 1]))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 3), min_size=2, max_size=30),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_split_of_pretraining_keeps_patients_together(counts, fraction, seed):
    items = made_items(counts)
    sides = [split_patients(items, s, validation_fraction=fraction, seed=seed) for s in ("training", "validation")]
    patients = [{i["patient"] for i in side} for side in sides]
    assert all(patients) and not patients[0] & patients[1]
    assert sorted(i["image"] for side in sides for i in side) == sorted(i["image"] for i in items)
    assert abs(len(patients[1]) - fraction * len(counts)) <= 1


def test_select_patients():
    items = made_items([2, 1, 1])
    assert [i["patient"] for i in select_patients(items, exclude=["p0_0000", "p1_ct"])] == ["p2"]
    assert [i["patient"] for i in select_patients(items, exclude=["p0"])] == ["p1", "p2"]
    assert len(select_patients(items, include=["p0", "p2"], exclude=["p2"])) == 2


@pytest.mark.parametrize("ratio", [{"ct": 1, "mr": 1}, {"ct": 3, "mr": 1}, {"ct": 0, "mr": 1}])
def test_modality_ratio_of_what_is_drawn(ratio):
    items = [{"modality": "ct"}] * 30 + [{"modality": "mr"}] * 5
    weights = sampling_weights(items, ratio)
    assert sum(weights) == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.utils.data.WeightedRandomSampler(weights, 4000, generator=generator)
    share = sum(index < 30 for index in drawn) / 4000
    # four standard deviations of a share of 4000 draws
    assert share == pytest.approx(ratio["ct"] / sum(ratio.values()), abs=0.032)


def test_sources_are_drawn_by_their_weights():
    first = {"modality": "ct", "source": "a", "weight": 3}
    second = {"modality": "ct", "source": "b"}
    third = {"modality": "mr", "source": "c", "weight": 4}
    items = [first, first, second, third]
    assert sampling_weights(items) == pytest.approx([1.5 / 8, 1.5 / 8, 1 / 8, 4 / 8])
    assert sampling_weights(items, {"ct": 1, "mr": 1}) == pytest.approx([1.5 / 8, 1.5 / 8, 1 / 8, 1 / 2])
    assert sampling_weights([second, third | {"weight": 0}]) == [1, 0]
    assert sampling_weights([second, second]) is None
