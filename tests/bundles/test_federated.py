"""The training bundles as MONAI's federated client takes them, with default arguments: two sites, three rounds."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.optimizers import WarmupCosineSchedule

from swinfuse_components.distribution import build_package
from swinfuse_components.engines.learning_rates import warn_beyond_plan

from ..models import read_rows
from .conftest import parse, write_data
from .small_runs import SMALL

ROUNDS = 3
RATE = 1e-3


def make_site(name: str, repository: Path, root: Path, number: int) -> Path:
    """A bundle with the settings of the federation, and data of its own."""
    data = write_data(name, root / "data", cases=3 if name == "pretrain" else 4, seed=number)
    own = {
        "pretrain": {"modalities": ["ct" if number else "mr"]},
        "finetune_msd": {"in_channels": 1, "out_channels": 2, "spacing": [1.0, 1.0, 1.0]},  # the server has no data
        "finetune_brats": {},
    }[name]
    early = {} if name == "pretrain" else {"early_stop_patience": 5}
    plan = {"rounds": ROUNDS, "learning_rate": RATE, "dataset_dir": str(data), "num_workers": 0, **early}
    settings = {key: value for key, value in SMALL[name].items() if key not in ("max_epochs", "device")}
    package = build_package(repository / "bundles" / name, root, settings={**settings, **plan, **own}, vendor=False)
    return package.parent / name


def rates(bundle: Path) -> list[float]:
    return [float(row["lr"]) for row in read_rows(bundle / "models" / "losses.csv")]


def planned(steps: int, warmup: int, first: float) -> list[float]:
    """A linear rise, then half a cosine down to 0 at the end of the last round."""
    rise = [first + (1 - first) * step / warmup for step in range(warmup)]
    fall = [0.5 * (1 + math.cos(math.pi * step / (steps - warmup))) for step in range(steps - warmup)]
    return [RATE * factor for factor in rise + fall]


def network_of(bundle: Path) -> torch.nn.Module:
    """As the server builds it: no workflow, no data."""
    return parse(bundle.name, str(bundle / "configs" / "train.json")).get_parsed_content("network_def")


@pytest.fixture
def sites(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> list[Path]:
    return [make_site(request.param, repository, tmp_path / f"site_{number}", number) for number in range(2)]


@pytest.fixture
def clients(sites: list[Path]) -> Iterator[list[MonaiAlgo]]:
    clients = [MonaiAlgo(bundle_root=str(site)) for site in sites]
    for number, client in enumerate(clients):
        client.initialize({ExtraItems.CLIENT_NAME: f"site_{number}"})
    yield clients
    for client in clients:
        client.finalize()


@pytest.mark.slow
@pytest.mark.parametrize("sites", ["pretrain", "finetune_msd", "finetune_brats"], indirect=True)
def test_three_rounds_of_two_sites(sites: list[Path], clients: list[MonaiAlgo]) -> None:
    torch.manual_seed(1)
    server = {name: value.clone() for name, value in network_of(sites[0]).state_dict().items()}
    evaluated = []
    for number in range(ROUNDS):
        differences = []
        for client in clients:
            client.train(ExchangeObject(weights={name: value.clone() for name, value in server.items()}))
            sent = client.get_weights()
            assert sent.weights.keys() == server.keys() and sent.statistics["num_executed_iterations"] > 0
            differences.append(sent.weights)
            # what the client sends is its network less what the server had sent: the round began from those weights
            for name, value in client.trainer.network.state_dict().items():
                torch.testing.assert_close(value, server[name] + sent.weights[name])
        moved = [sum(float(each[name].abs().sum()) for name in each) for each in differences]
        assert min(moved) > 0 or number == ROUNDS - 1
        for name, value in server.items():
            server[name] = value + ((differences[0][name] + differences[1][name]) / 2).to(value.dtype)
        for client in clients:
            metrics = client.evaluate(ExchangeObject(weights=server)).metrics
            assert all(torch.equal(v, server[n]) for n, v in client.evaluator.network.state_dict().items())
            evaluated.append({name: float(value) for name, value in metrics.items()})
    for client, site in zip(clients, sites, strict=True):
        assert client.trainer.state.epoch == ROUNDS
        length = client.trainer.state.epoch_length
        warmup, first = (2, 1 / 2) if site.name == "pretrain" else (length, 0.1)
        assert rates(site) == pytest.approx(planned(ROUNDS * length, warmup, first), rel=1e-6, abs=1e-12)
        final = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}).weights
        assert all(torch.equal(v, final[n]) for n, v in client.trainer.network.state_dict().items())
    metric = "val_loss" if sites[0].name == "pretrain" else "val_mean_dice"
    assert all(math.isfinite(each[metric]) for each in evaluated), "scored against labels"
    if metric == "val_mean_dice":
        record = json.loads((sites[0] / "models" / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
        assert record["cases"] and record["mean"]["dice"]["mean"] == pytest.approx(evaluated[-2][metric])


def test_a_site_that_is_started_anew_goes_on_with_the_weights_of_the_server(repository: Path, tmp_path: Path) -> None:
    sites = [make_site("pretrain", repository, tmp_path / name, 0) for name in ("whole", "interrupted")]

    def start(site: Path, **arguments: Any) -> MonaiAlgo:
        client = MonaiAlgo(bundle_root=str(site), config_evaluate_filename=None, **arguments)
        client.initialize()
        return client

    def train(client: MonaiAlgo, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        client.train(ExchangeObject(weights={name: value.clone() for name, value in weights.items()}))
        client.finalize()
        return {name: value.clone() for name, value in client.trainer.network.state_dict().items()}

    torch.manual_seed(1)
    first, second = (network_of(sites[0]).state_dict() for _ in range(2))
    whole = start(sites[0])
    train(whole, first)
    expected = train(whole, second)

    train(start(sites[1]), first)
    with pytest.raises(Exception, match="resume"):
        start(sites[1])
    client = start(sites[1], train_kwargs={"resume": True})
    found = train(client, second)
    assert client.get_weights().statistics["num_executed_iterations"] == client.trainer.state.epoch_length
    assert rates(sites[0]) == rates(sites[1])
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_run_beyond_the_plan_is_told(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=1, t_total=6)
    engine = Engine(lambda *_: None)
    engine.state.epoch_length = 3
    for rounds in (1, 2, 3):
        engine.state.max_epochs = rounds
        warn_beyond_plan(schedule, engine)
        assert ("set 'rounds'" in caplog.text) == (rounds == 3)
