"""The whole matrix on networks whose answer is known: what is read, computed, kept, reported and refused."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from filelock import FileLock
from monai.transforms import EnsureTyped, Lambdad, Orientationd, Spacingd

from swinfuse_components.evaluation.baselines import EverythingForeground, MeanTrainingMask, OtsuThreshold
from swinfuse_components.evaluation.matrix import OutOfDistributionMatrix, prediction_path
from swinfuse_components.evaluation.models import NetworkSource, PredictionFiles
from swinfuse_components.evaluation.targets import Target

from ..models import read_rows
from .conftest import write_cases

Make = Callable[..., NetworkSource]


def test_every_source_on_every_target(tmp_path: Path, items: list[dict], make_source: Make) -> None:
    targets = [Target("A", items, modality="mr"), Target("B", write_cases(tmp_path / "b", 2), modality="mr")]
    sources = [make_source("good"), make_source("blind", 2.0), EverythingForeground(), OtsuThreshold()]
    rows = OutOfDistributionMatrix(sources, targets, tmp_path / "out").run()
    assert len(rows) == 4 * (4 + 2)
    dice = {(r.model, r.target, r.case): r.dice for r in rows.itertuples()}
    assert all(dice["good", "A", f"case{n}"] == 1 for n in range(4))
    assert dice["blind", "B", "case1"] == 0
    share = np.mean(nib.load(items[0]["label"]).get_fdata())
    assert dice["everything foreground", "A", "case0"] == pytest.approx(2 * share / (1 + share))
    assert dice["Otsu's threshold", "A", "case0"] > 0.99
    assert len(read_rows(tmp_path / "out" / "cases.csv")) == len(rows)


def test_scores_are_taken_on_the_grid_of_the_case(tmp_path: Path, items: list[dict], make_source: Make) -> None:
    """Turned and resampled for the network, the answer comes back to the label's own grid."""
    preprocessing = [Orientationd("image", "RAS", labels=None), Spacingd("image", (1.0, 1.0, 1.0))]
    source = make_source(preprocessing=preprocessing)
    rows = OutOfDistributionMatrix([source], [Target("A", items, modality="mr")], tmp_path / "out").run()
    assert rows["dice"].min() > 0.9
    kept = nib.load(prediction_path(tmp_path / "out", "Threshold", "CT boxes", "image", "A", "case0"))
    truth = nib.load(items[0]["label"])
    assert kept.shape == truth.shape and np.allclose(kept.affine, truth.affine)


def test_models_are_loaded_once_and_cases_checked_and_read_once(
    tmp_path: Path, target: Target, make_source: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    load = Target.load
    monkeypatch.setattr(Target, "load", lambda self, item: (reads.append(item["label"]), load(self, item))[1])
    opened: list[str] = []
    import swinfuse_components.checkpoints.loading as module

    read = module.read_weights
    monkeypatch.setattr(module, "read_weights", lambda path: (opened.append(str(path)), read(path))[1])
    sources = [make_source("a", views=("image", "inverted", "blank")), make_source("b")]
    OutOfDistributionMatrix(sources, [target], tmp_path / "out").run()
    assert len(set(reads)) == 4 and len(reads) == 8 and len(opened) == 2  # once in the check, once for the scores


def test_views_at_test_time(tmp_path: Path, target: Target, make_source: Make) -> None:
    """A model for dark boxes fails on bright ones, until they are turned over."""
    source = make_source(views=("image", "inverted", "blank"))
    source.load()
    bright = torch.nn.Parameter(torch.tensor(0.45))
    source.network.level = bright
    rows = OutOfDistributionMatrix([source], [target], tmp_path / "out").run()
    mean = rows.groupby("view")["dice"].mean()
    assert mean["image"] == 1 and mean["inverted"] < 0.5 and mean["blank"] == 0


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path, target: Target, make_source: Make) -> None:
    out = tmp_path / "out"
    first = OutOfDistributionMatrix([make_source("a")], [target], out).run()
    table = out / "cases.csv"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    # two rows and a line cut short
    table.write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2], encoding="utf-8")
    asked: list[str] = []
    source = make_source("a")
    predict = source.predict
    source.predict = lambda case, view: (asked.append(case.name), predict(case, view))[1]  # type: ignore[method-assign]
    second = OutOfDistributionMatrix([source], [target], out).run()
    assert asked == ["case2", "case3"]
    assert second[["case", "dice"]].equals(first[["case", "dice"]])


def test_a_new_checkpoint_makes_its_rows_stale_and_no_others(tmp_path: Path, target: Target, make_source: Make) -> None:
    out = tmp_path / "out"
    OutOfDistributionMatrix([make_source("a"), make_source("b")], [target], out).run()
    a, b = make_source("a", 2.0), make_source("b")
    b.predict = None  # type: ignore[method-assign,assignment]
    rows = OutOfDistributionMatrix([a, b], [target], out).run()
    assert rows.groupby("model")["dice"].agg(["min", "max"]).to_numpy().tolist() == [[0, 0], [1, 1]]


def test_an_unreadable_case_is_reported_and_costs_nothing_else(
    tmp_path: Path, items: list[dict], make_source: Make
) -> None:
    Path(items[1]["image"]).write_bytes(b"not a volume")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), items[2]["label"])
    target = Target("A", items, modality="mr")
    matrix = OutOfDistributionMatrix([make_source()], [target], tmp_path / "out")
    assert set(matrix.run()["case"]) == {"case0", "case3"}
    assert list(matrix.failures["case"]) == ["case1", "case2"] and "case1_0000.nii.gz" in matrix.failures["reason"][0]
    assert "(3, 3, 3)" in matrix.failures["reason"][1]
    assert "case1" in (tmp_path / "out" / "failures.csv").read_text(encoding="utf-8")


def test_a_model_that_fails_on_a_case_costs_nothing_else(tmp_path: Path, target: Target, make_source: Make) -> None:
    broken = make_source("broken")
    broken.predict = None  # type: ignore[method-assign,assignment]
    matrix = OutOfDistributionMatrix([broken, make_source("good")], [target], tmp_path / "out")
    assert set(matrix.run()["model"]) == {"good"} and len(matrix.failures) == 4


def test_patients_trained_on_are_left_out_or_refused(tmp_path: Path, target: Target, make_source: Make) -> None:
    source = make_source(training_patients=["p0", "p3"])
    rows = OutOfDistributionMatrix([source, EverythingForeground()], [target], tmp_path / "out").run()
    assert set(rows.query("model == 'Threshold'")["case"]) == {"case1", "case2"}
    with pytest.raises(ValueError, match=r"trained on patients of Boxes: \['p0', 'p3'\]"):
        OutOfDistributionMatrix([source], [target], tmp_path / "out", on_leak="error").check()
    everyone = make_source(training_patients=[f"p{n}" for n in range(4)])
    with pytest.raises(ValueError, match="every patient"):
        OutOfDistributionMatrix([everyone], [target], tmp_path / "out").check()


def test_mapped_classes(tmp_path: Path, items: list[dict], make_source: Make) -> None:
    target = Target("A", items, modality="mr", classes={"cube": 1})
    matrix = OutOfDistributionMatrix([make_source()], [target], tmp_path / "out", class_mapping={"box": "cube"})
    assert set(matrix.run()[["label", "dice"]].itertuples(index=False, name=None)) == {("cube", 1.0)}


def test_classes_of_one_name(tmp_path: Path, items: list[dict], make_source: Make) -> None:
    target = Target("A", items, modality="mr", classes={"cube": 2, "box": 1})
    sources = [make_source(), EverythingForeground()]  # the second has no classes of its own
    matrix = OutOfDistributionMatrix(sources, [target], tmp_path / "out", class_mapping="same")
    assert matrix.class_mapping == {"box": "box"} and set(matrix.run()["label"]) == {"box"}
    other = Target("A", items, modality="mr", classes={"cube": 1})
    for word, message in (("same", "no class has one name everywhere"), ("box", "class_mapping is 'box': expected")):
        with pytest.raises(ValueError, match=message):
            OutOfDistributionMatrix(sources, [other], tmp_path / "out", class_mapping=word)


def test_channels_one_after_the_other(tmp_path: Path, make_source: Make) -> None:
    two = write_cases(tmp_path / "two", 2, channels=2)
    each = Target("A", two, modality="mr", channels=("T1", "T2"), channel="each")
    rows = OutOfDistributionMatrix([make_source()], [each], tmp_path / "out").run()
    mean = rows.groupby("target")["dice"].mean()
    assert mean["A [T1]"] == 1 and mean["A [T2]"] < 0.5
    assert Target("A", two, modality="mr", channels=("T1", "T2"), channel="T2").views == {"A [T2]": 1}
    with pytest.raises(ValueError, match="'T3' does not exist"):
        Target("A", two, modality="mr", channels=("T1", "T2"), channel="T3")


def test_channels_in_one_file_of_four_dimensions(tmp_path: Path) -> None:
    """The Decathlon keeps several sequences in one file, channels last."""
    item = write_cases(tmp_path, 1, channels=2)[0]
    stacked = np.stack([nib.load(file).get_fdata() for file in item["image"]], -1)
    nib.save(nib.Nifti1Image(stacked.astype(np.float32), nib.load(item["label"]).affine), tmp_path / "both.nii.gz")
    target = Target("A", [{**item, "image": str(tmp_path / "both.nii.gz")}], modality="mr", channels=("T1", "T2"))
    case = target.load(target.items[0])
    assert case.image.shape == (2, *case.truth.shape) and np.allclose(case.only(1).image[0], stacked[..., 1])


def test_predictions_of_another_program(tmp_path: Path, target: Target) -> None:
    folder = tmp_path / "nnunet" / "Boxes"
    folder.mkdir(parents=True)
    for item in target.items[:3]:
        volume = nib.load(item["label"])
        nib.save(nib.Nifti1Image(volume.get_fdata().astype(np.uint8), volume.affine), folder / Path(item["label"]).name)
    matrix = OutOfDistributionMatrix([PredictionFiles("nnU-Net", "CT", folder.parent)], [target], tmp_path / "out")
    assert matrix.run()["dice"].tolist() == [1, 1, 1]
    assert list(matrix.failures["case"]) == ["case3"]
    with pytest.raises(ValueError, match="does not exist|no prediction"):
        OutOfDistributionMatrix([PredictionFiles("x", "CT", tmp_path / "none")], [target], tmp_path / "out").check()


def test_all_that_is_wrong_is_said_before_anything_is_computed(tmp_path: Path, make_source: Make) -> None:
    two = Target("Two", write_cases(tmp_path / "two", 1, channels=2), modality="mr", channels=("T1", "T2"))
    one = Target("One", write_cases(tmp_path / "one", 1), modality="mr", classes={"cube": 1})
    misfit = make_source("misfit")
    torch.save({"model": {"level": torch.zeros(3), "bias": torch.zeros(1)}}, tmp_path / "misfit.pt")
    absent = make_source("absent")
    (tmp_path / "absent.pt").unlink()
    sources = [misfit, absent, make_source("twin"), make_source("twin")]
    with pytest.raises(ValueError) as error:
        OutOfDistributionMatrix(sources, [two, one], tmp_path / "out", class_mapping={"bax": "cube"}).run()
    message = str(error.value)
    for part in (
        "misfit.pt does not fit the network in 2 of its tensors: level: file (3,), network ()",
        "bias: file (1,), network has none",
        "absent.pt",
        "takes 1 channel(s), target Two shows 2 of ['T1', 'T2']",
        "target Two has no class 'cube'",
        "has no class 'bax': it has ['box']",
        "two models are called ('twin', 'CT boxes')",
    ):
        assert part in message, message
    assert not (tmp_path / "out").exists()


def test_native_scales_the_target_as_the_training_modality(
    tmp_path: Path, items: list[dict], make_source: Make
) -> None:
    seen: list[str] = []
    steps = [EnsureTyped("image"), Lambdad("modality", lambda name: seen.append(name) or name)]
    target = Target("A", items[:1], modality="mr")
    sources = [make_source("own", preprocessing=steps), make_source("native", preprocessing=steps, native=True)]
    OutOfDistributionMatrix(sources, [target], tmp_path / "out").run()
    assert seen == ["mr", "ct"]


def test_a_mean_mask_beside_a_model(tmp_path: Path, target: Target, items: list[dict]) -> None:
    baseline = MeanTrainingMask(items[:2])
    rows = OutOfDistributionMatrix([baseline], [target], tmp_path / "out").run()
    assert set(rows["case"]) == {"case2", "case3"} and rows["dice"].min() > 0.5


def test_two_evaluations_do_not_share_a_folder_at_once(tmp_path: Path, target: Target, make_source: Make) -> None:
    out = tmp_path / "out"
    rows = OutOfDistributionMatrix([make_source()], [target], out).run()
    with FileLock(out / ".lock"), pytest.raises(RuntimeError, match="another evaluation is writing"):
        OutOfDistributionMatrix([make_source()], [target], out).run()
    lines = (out / "cases.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "cases.csv").write_text("".join([*lines, *lines[1:]]), encoding="utf-8")  # as two at once once left it
    assert OutOfDistributionMatrix([make_source()], [target], out).run().equals(rows)


def test_models_of_similar_names_keep_their_own_predictions() -> None:
    names = [("A B", "c"), ("A_B", "c"), ("A", "B-c"), ("A-B", "c"), ("..", "c"), ("A/B", "c")]
    paths = {prediction_path("out", model, data, "image", "t", "x") for model, data in names}
    assert len(paths) == len(names) and all(len(path.parts) == 7 and ".." not in path.parts for path in paths)
