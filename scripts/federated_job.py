"""A job for NVIDIA FLARE: a training bundle, its sites, and a server that averages what they send.

python scripts/federated_job.py dist/pretrain --rounds 3 --output_dir job \\
    --sites '{"ct": {"dataset_dir": "/data/ct", "modalities": ["ct"]}, "mr": {"dataset_dir": "/data/mr"}}'
nvflare simulator job -w workspace -c ct,mr -t 2

Start with the weights of a pre-training, federated or not: --pretrained_checkpoint FILE. See docs/federated.md.
"""

import json
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser

from swinfuse_components.engines import short_errors
from swinfuse_components.finetuning import load_starting_point


def component(name: str, path: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "path": path, "args": arguments}


def server(bundle: Path, rounds: int, clients: int, weights: Path | None) -> dict[str, Any]:
    common = "nvflare.app_common"
    names = {name: name.removesuffix("_id") for name in ("aggregator_id", "persistor_id", "shareable_generator_id")}
    flow = {"min_clients": clients, "num_rounds": rounds, "train_timeout": 0, "train_task_name": "train", **names}
    start = {} if weights is None else {"source_ckpt_filename": str(weights)}
    return {
        "format_version": 2,
        "workflows": [component("rounds", f"{common}.workflows.scatter_and_gather.ScatterAndGather", **flow)],
        "components": [
            component(
                "persistor",
                "monai_nvflare.monai_bundle_persistor.MonaiBundlePersistor",
                bundle_root=str(bundle),
                **start,
            ),
            component(
                "shareable_generator",
                f"{common}.shareablegenerators.full_model_shareable_generator.FullModelShareableGenerator",
            ),
            component(
                "aggregator",
                f"{common}.aggregators.intime_accumulate_model_aggregator.InTimeAccumulateWeightedAggregator",
                expected_data_kind="WEIGHT_DIFF",
            ),
        ],
    }


def client(bundle: Path, settings: dict[str, Any], metric: str) -> dict[str, Any]:
    executor = component(
        "executor",
        "monai_nvflare.client_algo_executor.ClientAlgoExecutor",
        client_algo_id="client",
        key_metric=metric,
    )
    kwargs = {"train_kwargs": settings, "eval_kwargs": settings}
    return {
        "format_version": 2,
        "executors": [{"tasks": ["train", "validate", "submit_model"], "executor": executor}],
        "components": [component("client", "monai.fl.client.MonaiAlgo", bundle_root=str(bundle), **kwargs)],
    }


def main(
    bundle: str,
    rounds: int,
    sites: dict[str, dict[str, Any]],
    output_dir: str,
    run_dir: str | None = None,
    pretrained_checkpoint: str | None = None,
) -> None:
    """Write the job's folder.

    Args:
        bundle: a package, at this place on the server and at every site.
        rounds: times that each site trains.
        sites: settings of each site, by its name.
        output_dir: the job's folder.
        run_dir: where each site keeps its run, in a folder of its name; beside the job unless given.
        pretrained_checkpoint: of the bundle `pretrain`; a fine-tuning starts with its encoder.
    """
    root, job = Path(bundle).resolve(), Path(output_dir).resolve()
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    weights = None
    if pretrained_checkpoint is not None:
        network = parser.get_parsed_content("network_def")
        load_starting_point(network, "pretrained", {"pretrained": pretrained_checkpoint})
        weights = job / "weights.pt"
        job.mkdir(parents=True, exist_ok=True)
        torch.save({"model": network.state_dict()}, weights)
    metric = "val_mean_dice" if "fold" in parser else "val_loss"
    apps = {"server": ("server", server(root, rounds, len(sites), weights))}
    for name, settings in sites.items():
        place = Path(run_dir).resolve() / name if run_dir else job.with_name(f"{job.name}_runs") / name
        own = {"rounds": rounds, "run_dir": str(place), "output_dir": str(place / "evaluation"), **settings}
        apps[name] = ("client", client(root, own, metric))
    for name, (kind, content) in apps.items():
        path = job / f"app_{name}" / "config" / f"config_fed_{kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    deploy = {f"app_{name}": [name] for name in apps}
    meta = {"name": root.name, "min_clients": len(sites), "resource_spec": {}, "deploy_map": deploy}
    (job / "meta.json").write_text(json.dumps(meta, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    short_errors()
    fire.Fire(main)
