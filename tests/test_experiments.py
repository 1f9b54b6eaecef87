"""The plan of the experiments, their runner, and the page that is written from their scores."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout
from monai.bundle import ConfigParser
from scipy import stats

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture(scope="module")
def run():
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module("run")
    sys.path.remove(str(EXPERIMENTS))


@pytest.fixture(scope="module")
def report(run):
    return importlib.import_module("report")


def _series(values: dict[tuple[str, int, int], float]) -> pd.Series:
    return pd.Series(values.values(), pd.MultiIndex.from_tuples(values, names=["patient", "fold", "seed"]), dtype=float)


def test_page_of_results_says_what_the_stored_scores_say(report) -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.render(page) == page, "docs/results.md is not up to date: python experiments/report.py write"
    with pytest.raises(KeyError, match="no_such_table"):
        report.render("<!-- table: no_such_table --> <!-- end -->")


def test_patients_are_the_unit_and_seeds_are_averaged(report) -> None:
    rng = np.random.default_rng(0)
    tables = rng.uniform(0.2, 0.8, (2, 2, 12))  # model, seed, patient
    tables[0] += 0.1
    first, second = (_series({(f"p{p}", 0, s): t[s, p] for s in range(2) for p in range(12)}) for t in tables)
    second = second.drop(("p3", 0, 1))  # a seed that only one of them has does not count
    expected = tables[0].mean(0) - tables[1].mean(0)
    expected[3] = tables[0, 0, 3] - tables[1, 0, 3]
    test = report.compare(first, second)
    assert test.cases == 12 and test.difference == pytest.approx(expected.mean())
    reference = stats.permutation_test(
        (expected, np.zeros(12)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert test.p_value == pytest.approx(reference.pvalue, abs=0.01)


def test_interval_over_folds_is_a_t_interval_of_their_means(report) -> None:
    first = _series({(f"p{i}", i % 3, 0): 0.5 + 0.01 * i for i in range(9)})
    second = _series({(f"p{i}", i % 3, 0): 0.4 + 0.02 * (i % 3) for i in range(9)})
    means = [np.mean([0.5 + 0.01 * i - 0.4 - 0.02 * k for i in range(k, 9, 3)]) for k in range(3)]
    half = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / np.sqrt(3)
    assert report.difference(first, second)[1:] == pytest.approx((np.mean(means) - half, np.mean(means) + half))


def test_a_direction_is_named_only_where_interval_and_test_agree(report) -> None:
    result = report.PairedTest(0.1, 0.05, 0.15, 0.001, 41, "permutation")
    assert report.verdict(result, 0.01, (0.1, 0.02, 0.18)) == "**higher**"
    assert report.verdict(result, 0.2, (0.1, 0.02, 0.18)) == "not resolved"
    assert report.verdict(result, 0.01, (0.1, -0.02, 0.22)) == "not resolved"
    assert report.verdict(result._replace(low=-0.01), 0.01, (0.1, 0.02, 0.18)) == "not resolved"
    assert report.verdict(result._replace(low=-0.15, high=-0.05), 0.01, (-0.1, -0.18, -0.02)) == "**lower**"
    assert report.verdict(result._replace(cases=0), float("nan"), (0.1, np.nan, np.nan)) == "not measured"


def test_overlays_of_the_plan_name_keys_of_their_bundles_and_agree_on_the_network(run) -> None:
    matrix = run.read_matrix()
    plan = [("pretrain", names) for names in matrix["pretrainings"].values()]
    plan += [("finetune", arm.get("overlays", ())) for arm in matrix["arms"].values()]
    plan += [("evaluate", [f"experiments/configs/{name}.yaml"]) for name in ("trivial_baselines", "union")]
    for kind, names in plan:
        files = run.overlays(kind, names)
        parser = ConfigParser()
        parser.read_config(files)
        known = set(ConfigParser.load_config_files([files[0]])) | {"steps", "_meta_"}
        assert set(parser.config) <= known, files
    for arm in matrix["arms"].values():
        if "pretraining" in arm:
            parser = ConfigParser()
            parser.read_config(run.overlays("pretrain", matrix["pretrainings"][arm["pretraining"]]))
            assert (parser["dim"], parser["dim_options"]) == (arm["network"], arm.get("dim_options"))


def test_done_cells_and_steps_are_skipped_and_time_is_kept(run, tmp_path: Path, monkeypatch) -> None:
    asked, work = [], tmp_path / "work"
    monkeypatch.setattr(run.Runner, "run", lambda self, cell: asked.append(cell))
    results = tmp_path / "results.csv"
    pd.DataFrame([{"arm": "swin_unetr", "seed": 0, "fold": 0}]).to_csv(results, index=False)
    options = {"arms": "swin_unetr", "seeds": 0, "niceness": 0, "results": str(results)}
    message = run.run(str(tmp_path), str(work), **options)
    assert [cell.fold for cell in asked] == [1, 2, 3, 4] and message.startswith("nothing is left: 4")
    with FileLock(work / ".lock"), pytest.raises(Timeout):
        run.run(str(tmp_path), str(work), **options)
    runner = run.Runner(str(tmp_path), str(work), minutes=0)
    with pytest.raises(run.OutOfTimeError):
        runner.step(run.Cell("swin_unetr", 0, 0), "finetune", [], work / "x")
    (work / "x").mkdir(parents=True)
    (work / "x" / "done").touch()
    runner.step(run.Cell("swin_unetr", 0, 0), "finetune", [], work / "x")


@pytest.mark.slow
def test_arms_run_from_pretraining_to_scores(run, swinfuse_data, tmp_path: Path, monkeypatch) -> None:
    """Two steps of every training and one case of every test, with the configurations of the plan."""
    importlib.import_module("volumes").prepare(str(swinfuse_data), str(tmp_path / "volumes"))
    short = {"pretrain": "epoch_length: 2\n", "finetune": "steps: 2\n", "evaluate": "limit: 1\n"}
    for kind, text in short.items():
        (tmp_path / f"{kind}.yaml").write_text(text, encoding="utf-8")
    planned = run.overlays
    monkeypatch.setattr(run, "overlays", lambda kind, names=(): [*planned(kind, names), str(tmp_path / f"{kind}.yaml")])
    arms = ["swin_unetr", "swinfuse_pretrained", "paper_pretrained", "trivial", "swinfuse_2", "union_swin_unetr"]
    folders, results = (str(tmp_path / "volumes"), str(tmp_path / "work")), tmp_path / "results.csv"
    message = run.run(*folders, arms=arms, seeds=0, folds=0, minutes=30, results=str(results), niceness=0)
    assert message == f"nothing is left: {len(arms)} cells done, 0 failed"
    for arm, rows in pd.read_csv(results).groupby("arm"):
        union = run.read_matrix()["arms"][arm].get("table") == "union"
        assert set(rows["structure"]) == ({"foreground"} if union else {"tumour", "bone"})
        assert rows["dice"].dropna().between(0, 1).all()
