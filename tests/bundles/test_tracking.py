"""`--tracking mlflow`, as MONAI documents it, for every training bundle."""

from pathlib import Path

import pytest

from .small_runs import SmallBundle

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'swinfuse-components[tracking]'")


@pytest.mark.parametrize("name", ["pretrain", "finetune_msd", pytest.param("finetune_brats", marks=pytest.mark.slow)])
def test_a_training_is_logged_to_mlflow(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    bundle = SmallBundle(name, tmp_path / "data")
    bundle.train(run, tracking="mlflow", output_dir=str(tmp_path / "eval"), num_workers=0, max_epochs=2)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'eval' / 'mlruns.db'}")
    (experiment,) = (found for found in client.search_experiments() if found.name == "monai_experiment")
    metrics: dict[str, int] = {}
    for logged in client.search_runs([experiment.experiment_id]):
        for metric in logged.data.metrics:
            metrics[metric] = max(metrics.get(metric, 0), len(client.get_metric_history(logged.info.run_id, metric)))
    best = "val_loss" if name == "pretrain" else "val_mean_dice"
    assert metrics["train_loss"] >= 2 and metrics[best] == 2, metrics
