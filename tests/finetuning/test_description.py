import json
from pathlib import Path

import pytest

from swinfuse_components.engines.guards import write_record
from swinfuse_components.finetuning import GENERIC_DESCRIPTION, patients_of, read_description, regions_of

TASK = {
    "name": "Toy",
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "PZ", "2": "TZ"},
    "training": [],
}


def test_a_written_description_is_read_back(tmp_path: Path) -> None:
    described = {**GENERIC_DESCRIPTION, "name": "liver", "spacing": [1.0, 1.0, 2.5], "extra": 3}
    write_record(tmp_path / "a" / "model.json", described)
    assert read_description([tmp_path / "missing.json", tmp_path / "a" / "model.json"]) == described
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.json"], "no temporary file is left"


def test_dataset_json_gives_channels_classes_and_modality_but_no_spacing(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(TASK), encoding="utf-8")
    described = read_description([tmp_path / "model.json", tmp_path / "dataset.json"])
    assert described["channels"] == ["T2", "ADC"] and described["modality"] == "mr"
    assert described["labels"] == {"0": "background", "1": "PZ", "2": "TZ"}
    assert described["spacing"] is None and described["feature_size"] == 48


def test_without_a_file_nothing_is_assumed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/model.json"):
        read_description([tmp_path / "model.json", tmp_path / "no data"])


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ("[]", "found list"), ('{"name": "x"}', "missing")]
)
def test_a_damaged_description_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_description([path])
    assert str(path) in str(error.value)


def test_regions_are_the_classes_unless_told_otherwise() -> None:
    labels = {"0": "background", "1": "liver", "2": "cancer"}
    assert regions_of({"labels": labels}) == {"liver": [1], "cancer": [2]}
    assert regions_of({"labels": labels, "regions": {"liver": [1, 2]}}) == {"liver": [1, 2]}


def test_patients_are_known_by_their_file_where_a_list_does_not_say() -> None:
    items = [{"image": "/a/b.nii.gz"}, {"image": ["/x/c_flair.nii", "/x/c_t1.nii"]}, {"image": "i", "patient": "p"}]
    assert patients_of(items) == ["b", "c", "p"]
