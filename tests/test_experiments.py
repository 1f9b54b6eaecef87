"""The experiments' plan, their splits, and the page of results that must say what the stored scores say."""

import csv
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from scipy import stats

from swinfuse_components.data import assign_folds, load_fold, load_folds


@pytest.fixture
def experiments(repository: Path, monkeypatch: pytest.MonkeyPatch):
    """Modules `run` and `report` of the folder `experiments`; what they and their like keep is dropped afterwards."""
    monkeypatch.syspath_prepend(str(repository / "experiments"))
    run, report = importlib.import_module("run"), importlib.import_module("report")
    yield run, report
    for name in ("run", "scores", "figures", "report", "volumes", "features"):
        importlib.sys.modules.pop(name, None)


@pytest.fixture
def matrix(repository: Path) -> dict:
    return yaml.safe_load((repository / "experiments" / "matrix.yaml").read_text(encoding="utf-8"))


def _write(run, arm: str, seed: int, fold: int, dice: dict[tuple[str, str], float], structure: str = "tumour") -> None:
    cell = run.Cell(arm, seed, fold)
    cell.result.parent.mkdir(parents=True, exist_ok=True)
    with cell.result.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(run.COLUMNS)
        for (modality, patient), value in dice.items():
            writer.writerow([arm, seed, fold, "model", "image", modality, patient, structure, value, 0, 0, 0, 0, 0])


def test_every_patient_is_tested_once_and_never_trained_on(repository: Path, matrix: dict) -> None:
    path = repository / "experiments" / "splits" / "sarcoma.json"
    items = load_folds(path)
    assert len(items) == 41
    tested = []
    for fold in matrix["folds"]:
        training = {item["patient"] for item in load_fold(path, fold, "training")}
        testing = {item["patient"] for item in load_fold(path, fold, "validation")}
        assert not training & testing and len(training | testing) == 41
        tested += sorted(testing)
    assert len(tested) == len(set(tested)) == 41
    # the mean-mask baseline splits by seed, not by file: the two must agree
    assert {item["patient"]: item["fold"] for item in items} == assign_folds([i["patient"] for i in items], 5, 0)


def test_split_names_the_patients_of_the_data(repository: Path, swinfuse_data: Path) -> None:
    items = json.loads((repository / "experiments" / "splits" / "sarcoma.json").read_text(encoding="utf-8"))["training"]
    for task in ("Task51_SarcomaCT", "Task52_SarcomaMR"):
        assert all((swinfuse_data / "MSD_like" / task / item["image"]).is_file() for item in items)
    pairs = {p.name for p in (swinfuse_data / "SynthRAD_like" / "Task1" / "thigh").iterdir()}
    assert pairs == {item["patient"] for item in items}


def test_pretraining_leaves_out_the_tested_patients(experiments, tmp_path: Path, monkeypatch) -> None:
    run, _ = experiments
    runner = run.Runner(tmp_path, tmp_path / "work", 1)
    steps = []
    monkeypatch.setattr(runner, "step", lambda cell, kind, files, folder, **values: steps.append(values))
    runner.pretrain(run.Cell("swinfuse_pretrained", 2, 3), "swinfuse")
    split = json.loads((run.HERE / "splits" / "sarcoma.json").read_text(encoding="utf-8"))["training"]
    assert steps[0]["exclude_patients"] == sorted(i["patient"] for i in split if i["fold"] == 3)
    assert steps[0]["seed"] == 0  # a fold has one pre-training, whatever the seed of the fine-tuning


def test_cells_come_by_seed_then_arm_then_fold(experiments, matrix: dict) -> None:
    run, _ = experiments
    every = list(run.cells(table="main"))
    main = [arm for arm in matrix["arms"].values() if "table" not in arm]
    assert len(set(every)) == len(every) == sum(5 * len(arm.get("seeds", [0, 1, 2])) for arm in main)
    others = {arm["table"] for arm in matrix["arms"].values() if "table" in arm}
    assert all(cell.seed == 0 for table in others for cell in run.cells(table=table))
    assert [c.seed for c in every] == sorted(c.seed for c in every)
    assert [c.fold for c in every[:5]] == [0, 1, 2, 3, 4]
    assert {c.arm for c in run.cells(arms="swinfuse,swin_unetr", seeds=0, folds=2)} == {"swinfuse", "swin_unetr"}
    with pytest.raises(ValueError, match="unknown arms"):
        list(run.cells(arms="nonsense"))


def test_configurations_of_the_plan_fit_together(experiments, matrix: dict) -> None:
    """Every overlay is there, merges into its bundle, and overrides no key that the bundle has not got."""
    run, _ = experiments
    plan = [("pretrain", names) for names in matrix["pretrainings"].values()]
    plan += [("finetune", arm.get("overlays", [])) for arm in matrix["arms"].values() if not arm.get("trivial")]
    plan += [("evaluate", ["experiments/configs/trivial_baselines.yaml"])]
    for kind, names in plan:
        files = run.overlays(matrix, kind, names)
        parser = ConfigParser()
        parser.read_config(files)
        known = set(ConfigParser.load_config_files([files[0]])) | {"steps"}
        assert set(parser.config) - known <= {"_meta_"}, files
    transforms = ConfigParser.load_config_files([run.overlays(matrix, "pretrain")[0]])["train"]["preprocessing"]
    assert transforms["transforms"][9]["_target_"].endswith("RandTwoViewsd")  # what two_contrasts.yaml changes


def test_every_step_of_the_plan_passes_the_check_of_its_bundle(experiments, matrix, tmp_path, monkeypatch) -> None:
    """What every run does first: overlays and overrides of the runner are of the kinds that the bundles expect."""
    run, _ = experiments
    for task in matrix["tasks"].values():
        (tmp_path / "MSD_like" / task).mkdir(parents=True)
        (tmp_path / "MSD_like" / task / "dataset.json").write_text(f'{{"name": "{task}"}}', encoding="utf-8")
    steps = {}
    monkeypatch.setattr(run.Runner, "_collect", lambda *_: None)
    monkeypatch.setattr(
        run.Runner, "step", lambda self, _, kind, files, __, **values: steps.update({(kind, *files, *values): values})
    )
    runner = run.Runner(str(tmp_path), str(tmp_path / "work"), minutes=1)
    for cell in run.cells(seeds=0, folds=0):
        runner.run(cell)
    assert {kind for kind, *_ in steps} == {"pretrain", "finetune", "evaluate"}
    check = "$engines.check_configuration()"
    for (_, *rest), values in steps.items():
        files = [name for name in rest if name not in values]
        place = ConfigParser.load_config_files(files[:1])["initialize"].index(check)
        ConfigWorkflow(files, init_id=f"initialize::{place}", **values).initialize()
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        ConfigWorkflow(files, init_id=f"initialize::{place}", **{**values, "fold": "zero"}).initialize()


def test_other_organs_are_asked_of_the_networks_of_another_arm(experiments, tmp_path: Path, monkeypatch) -> None:
    run, _ = experiments
    runner = run.Runner(str(tmp_path), str(tmp_path / "work"), minutes=1)
    steps, collected = {}, {}
    monkeypatch.setattr(runner, "step", lambda cell, kind, files, folder, **v: steps.update({kind: (files, folder, v)}))
    monkeypatch.setattr(runner, "_column", str.upper)
    monkeypatch.setattr(runner, "_collect", lambda cell, cases, names: collected.update({cell.arm: names}))
    runner.run(run.Cell("union_swinfuse", 0, 3))
    folder = tmp_path / "work" / "swinfuse" / "seed0_fold3"
    assert steps["finetune"][1] == folder  # skipped where the arm has been trained
    files, where, values = steps["evaluate"]
    assert values["models"] == [str(folder)] and where == folder / "union"
    assert ConfigParser.load_config_files(files)["class_mapping"] is None
    assert [Path(data["dataset_dir"]).name for data in values["datasets"]] == [
        "Task51_SarcomaCT",
        "Task52_SarcomaMR",
        "Task04_Hippocampus",
    ]
    assert ["fold_file" in data for data in values["datasets"]] == [True, True, False]
    assert collected == {"union_swinfuse": {"CT": "ct", "MR": "mr", "HIPPOCAMPUS": "hippocampus"}}
    runner.run(run.Cell("head_neck_swin_unetr", 0, 1))
    assert steps["finetune"][2]["dataset_dir"].endswith("Task50_HeadNeckCT")
    assert "fold_file" not in steps["finetune"][2]


def test_table_of_other_organs_names_the_difference_and_its_interval(experiments, tmp_path, monkeypatch) -> None:
    run, report = experiments
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    for fold, gain in ((0, 0.1), (1, 0.3)):
        cases = {("hippocampus", f"{fold}{i}"): 0.2 for i in range(3)}
        _write(run, "union_swin_unetr", 0, fold, cases, "foreground")
        _write(run, "union_swinfuse", 0, fold, {key: 0.2 + gain for key in cases}, "foreground")
    reference, ours = [line.strip("| ").split(" | ") for line in report.union().splitlines()[2:]]
    assert reference[:2] == ["sarcoma and bone in CT", "Swin UNETR, from scratch"]
    assert reference[2:] == ["-", "-", "-", "0.20 (0.20 to 0.20), 6 cases"]
    half = stats.t.ppf(0.975, 1) * 0.1  # two folds with 0.1 and 0.3
    assert ours[-1].endswith(f"6 cases; +0.20 ({0.2 - half:+.2f} to {0.2 + half:+.2f})")


def test_networks_of_the_arms_agree_with_their_pretraining(experiments, matrix: dict) -> None:
    run, _ = experiments
    for arm in matrix["arms"].values():
        if "pretraining" in arm:
            parser = ConfigParser()
            parser.read_config(run.overlays(matrix, "pretrain", matrix["pretrainings"][arm["pretraining"]]))
            assert parser["dim"] == arm["network"]
            assert parser["dim_options"] == arm.get("dim_options")


def test_done_cells_and_steps_are_skipped_and_time_is_kept(experiments, tmp_path: Path, monkeypatch) -> None:
    run, _ = experiments
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    asked = []
    monkeypatch.setattr(run.Runner, "run", lambda self, cell: asked.append(cell))
    _write(run, "swin_unetr", 0, 0, {("ct", "a"): 0.5})
    message = run.run(str(tmp_path), str(tmp_path / "work"), arms="swin_unetr", seeds=0, niceness=0)
    assert [cell.fold for cell in asked] == [1, 2, 3, 4] and message.startswith("nothing is left: 4")

    with run.FileLock(tmp_path / "work" / ".lock"), pytest.raises(SystemExit, match="another run"):
        run.run(str(tmp_path), str(tmp_path / "work"), arms="swin_unetr", seeds=0, niceness=0)

    runner = run.Runner(tmp_path, tmp_path / "work", minutes=0)
    with pytest.raises(run.OutOfTimeError):
        runner.step(run.Cell("swin_unetr", 0, 0), "finetune", [], tmp_path / "work" / "x")
    (tmp_path / "work" / "x").mkdir(parents=True)
    (tmp_path / "work" / "x" / "done").touch()
    runner.step(run.Cell("swin_unetr", 0, 0), "finetune", [], tmp_path / "work" / "x")


def test_patients_are_the_unit_and_seeds_are_averaged(experiments, tmp_path: Path, monkeypatch) -> None:
    run, report = experiments
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(12)]
    values = {arm: rng.uniform(0.2, 0.8, (2, 12)) for arm in ("swin_unetr", "swinfuse")}
    values["swinfuse"] += 0.1
    for arm, table in values.items():
        for seed in range(2):
            _write(run, arm, seed, 0, {("mr", p): v for p, v in zip(patients, table[seed])})
    scores = report.read_scores()
    means = report.patient_means(scores["swinfuse", "tumour", "mr"])
    assert np.allclose([means[p] for p in patients], values["swinfuse"].mean(0))
    test = report.compare(scores["swinfuse", "tumour", "mr"], scores["swin_unetr", "tumour", "mr"])
    expected = values["swinfuse"].mean(0) - values["swin_unetr"].mean(0)
    assert test.cases == 12 and test.difference == pytest.approx(expected.mean())
    reference = stats.permutation_test(
        (expected, np.zeros(12)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert test.p_value == pytest.approx(reference.pvalue, abs=0.01)
    assert f"{expected.mean():+.2f}" in report.contrasts()


@pytest.mark.slow
def test_every_arm_runs_from_pretraining_to_scores(experiments, matrix, swinfuse_data, tmp_path, monkeypatch) -> None:
    """Two steps of every training and one case of every test, with the configurations of the plan."""
    run, _ = experiments
    volumes = importlib.import_module("volumes")
    volumes.prepare(str(swinfuse_data), str(tmp_path / "volumes"))
    short = {"pretrain": "epoch_length: 2\n", "finetune": "steps: 2\n", "evaluate": "limit: 1\n"}
    for kind, text in short.items():
        (tmp_path / f"{kind}.yaml").write_text(text, encoding="utf-8")
    planned = run.overlays
    monkeypatch.setattr(
        run, "overlays", lambda plan, kind, names=(): [*planned(plan, kind, names), str(tmp_path / f"{kind}.yaml")]
    )
    message = run.run(
        str(tmp_path / "volumes"),
        str(tmp_path / "work"),
        seeds=0,
        folds=0,
        minutes=30,
        results=str(tmp_path / "results"),
        niceness=0,
    )
    assert message == f"nothing is left: {len(matrix['arms'])} cells done, 0 failed"
    for arm, settings in matrix["arms"].items():
        with run.Cell(arm, 0, 0).result.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["tested_on"] for row in rows} == set(settings.get("tested_on", ["ct", "mr"]))
        assert {row["view"] for row in rows} >= set(settings.get("views", []))
        structures = {"foreground"} if settings.get("table") == "union" else {"tumour", "bone"}
        assert {row["structure"] for row in rows} == structures
        assert all(0 <= float(row["dice"]) <= 1 or row["dice"] == "nan" for row in rows)


def test_a_direction_is_claimed_only_where_interval_and_test_agree(experiments) -> None:
    _, report = experiments
    result = report.PairedTest(0.1, 0.05, 0.15, 0.001, 41, "permutation")
    assert report.verdict(result, 0.01, (0.02, 0.18)) == "**higher**"
    assert report.verdict(result, 0.2, (0.02, 0.18)) == "not resolved"
    assert report.verdict(result, 0.01, (-0.02, 0.22)) == "not resolved"
    assert report.verdict(result._replace(low=-0.01), 0.01, (0.02, 0.18)) == "not resolved"
    nothing = float("nan")
    assert report.verdict(result, 0.01, (nothing, nothing)) == "not resolved"
    assert report.verdict(result._replace(low=-0.15, high=-0.05), 0.01, (-0.18, -0.02)) == "**lower**"
    assert report.verdict(result._replace(cases=0), nothing, (nothing, nothing)) == "not measured"


def test_interval_over_folds_is_a_t_interval_of_their_means(experiments) -> None:
    _, report = experiments
    first = {f"p{i}": {(0, i % 3): 0.5 + 0.01 * i} for i in range(9)}
    second = {f"p{i}": {(0, i % 3): 0.4 + 0.02 * (i % 3)} for i in range(9)}
    means = [np.mean([0.5 + 0.01 * i - 0.4 - 0.02 * k for i in range(k, 9, 3)]) for k in range(3)]
    half = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3)
    assert report.fold_interval(first, second) == pytest.approx((np.mean(means) - half, np.mean(means) + half))


def test_page_of_results_says_what_the_stored_scores_say(experiments) -> None:
    _, report = experiments
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.render(page) == page, "docs/results.md is not up to date: python experiments/report.py write"
    with pytest.raises(ValueError, match="no_such_table"):
        report.render("<!-- table: no_such_table --> <!-- end -->")


def test_tables_beside_the_main_one_compare_one_seed(experiments, matrix, tmp_path: Path, monkeypatch) -> None:
    run, report = experiments
    figures = importlib.import_module("figures")
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    for fold in (0, 1):
        for seed, value in enumerate((0.5, 0.9, 0.9)):
            _write(run, "swinfuse_pretrained", seed, fold, {("mr", f"{fold}{i}"): value for i in range(3)})
        _write(run, "density_zero", 0, fold, {("mr", f"{fold}{i}"): 0.3 for i in range(3)})
        _write(run, "swinfuse_5", 0, fold, {("mr", f"{fold}{i}"): 0.2 for i in range(3)})
        _write(run, "swin_unetr_5", 0, fold, {("mr", f"{fold}{i}"): 0.1 + 0.1 * fold for i in range(3)})
    _write(run, "swinfuse_pretrained_1000", 0, 1, {("mr", f"1{i}"): 0.6 for i in range(3)})
    table = report.ablations()
    assert "| no density loss | - | 0.30; -0.20 (-0.20 to -0.20) | - | - | 6 |" in table
    assert "| SwinFUSE, pre-trained | - | 0.50 | - | - | 6 |" in table
    drawn = {line.get_label(): line.get_xydata() for line in figures.ablations().axes[1].lines}
    assert any(np.allclose(points[:, 0], -0.2) for points in drawn.values())
    (line,) = [x for x in report.longer().splitlines() if x.startswith("| SwinFUSE") and "tumour in MRI" in x]
    assert line.split(" | ")[2:4] == ["1000", "3"]
    assert line.endswith("| 0.50 (0.50 to 0.50) | 0.60 (0.60 to 0.60) | +0.10 |")
    few_labels = report.few_labels().splitlines()
    (line,) = [x for x in few_labels if x.startswith("| the second minus the first | tumour in MRI")]
    assert line.split(" | ")[2:] == ["-", "+0.05 (-0.59 to +0.69)", "-", "-", "6 |"]  # 0.1 and 0.0 in two folds
    (line,) = [x for x in few_labels if x.startswith("| SwinFUSE") and "tumour in MRI" in x]
    assert line.split(" | ")[2:] == ["-", "0.20 (0.20 to 0.20)", "-", "0.50 (0.50 to 0.50)", "6 |"]


def test_bone_is_the_threshold_of_the_ct_outside_the_tumour(experiments) -> None:
    volumes = importlib.import_module("volumes")
    ct = MetaTensor(torch.full((1, 4, 4, 4), -50.0))
    ct[0, 1] = 700
    label = MetaTensor(torch.zeros(1, 4, 4, 4))
    label[0, 1, 0] = 1
    found = volumes.with_bone(label, ct)
    assert (found == 1).sum() == 4 and (found[0, 1, 1:] == volumes.BONE).all() and (found != 0).sum() == 16


def test_features_are_measured_for_each_encoder(experiments, tmp_path: Path, monkeypatch) -> None:
    features = importlib.import_module("features")
    crops = features.PairedCrops(torch.rand(6, 1, 32, 32, 32), torch.rand(6, 1, 32, 32, 32), list("abcdef"))
    found = features.measure(features.encoder_of("swinfuse", None, seed=0), crops, 0)
    assert {f"CKA, stage {k}" for k in range(5)} <= set(found) and "attention, CT against MRI" in found
    same = features.PairedCrops(crops.ct, crops.ct, crops.patients)
    plain = features.measure(features.encoder_of("none", None, seed=0), same, 0)
    assert plain["CKA, stage 4"] == pytest.approx(1) and plain["density divergence (at most 0.69)"] < 0.05
    assert "attention, CT against MRI" not in plain


def test_losses_over_training_are_means_of_a_few_steps(experiments, tmp_path: Path, monkeypatch) -> None:
    run, report = experiments
    features = importlib.import_module("features")
    for name, offset in (("swinfuse", 0.1), ("swin_unetr", 0.0)):
        folder = tmp_path / "pretraining" / name / "fold3"
        folder.mkdir(parents=True)
        lines = [f"1.5,1,1.1,{offset + offset * n}\n" for n in range(60)]
        (folder / "losses.csv").write_text(
            "inpainting,rotation,contrastive,density\n" + "".join(lines), encoding="utf-8"
        )
        (folder / "done").touch()
    rows = features.losses_over_training(tmp_path)
    ours = [row for row in rows if row[0] == "swinfuse"]
    assert [row[1:3] for row in ours] == [("3", step) for step in range(10, 70, 10)]
    assert [float(row[-1]) for row in ours] == pytest.approx([0.55 + n for n in range(6)])
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    features._write(tmp_path / "pretraining.csv", ("pretraining", "fold", "step", *features.TERMS), rows)
    assert "| SwinFUSE, pre-trained | 1 | 1.500 (1.500 to 1.500) |" in report.pretraining()
    assert "| 3.550 (3.550 to 3.550) |" in report.pretraining()  # of the last 50 steps
    figures = importlib.import_module("figures")
    (line,) = (line for line in figures.density().axes[0].lines if line.get_label() == "SwinFUSE, pre-trained")
    assert np.allclose(line.get_xydata()[:, 1], [0.55 + n for n in range(6)])
