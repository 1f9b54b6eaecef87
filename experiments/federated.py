"""Federated pre-training in one process: a site of CT alone, one of MRI alone, and the mean of what they send.

python scripts/package.py build bundles/pretrain --overlays bundles/pretrain/configs/small.yaml --vendor False
python experiments/federated.py dist/pretrain DATA --rounds 3 --output_dir federated
python experiments/federated.py dist/pretrain DATA --rounds 3 --output_dir joined --joined
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject


def main(bundle: str, dataset_dir: str, rounds: int, output_dir: str, joined: bool = False) -> None:
    """Print the validation loss on each modality after each round; leave `curve.csv` and `model.pt` in `output_dir`.

    `joined`: the same weights trained in one place on both modalities, for as many steps as both sites take together.
    """
    parser = ConfigParser()  # the server has the configuration alone
    parser.read_config(f"{bundle}/configs/train.json")
    torch.manual_seed(0)
    weights = {name: value.clone() for name, value in parser.get_parsed_content("network_def").state_dict().items()}

    def start(name: str, **settings: Any) -> MonaiAlgo:
        folder = f"{output_dir}/{name}"
        settings |= {"dataset_dir": dataset_dir, "run_dir": folder, "output_dir": f"{folder}/eval", "rounds": rounds}
        client = MonaiAlgo(bundle, train_kwargs=dict(settings), eval_kwargs=dict(settings))
        client.initialize({"fl_client_name": name})
        return client

    sites = {name: start(name, modalities=[name]) for name in ("ct", "mr")}
    trained = list(sites.values())
    if joined:
        trained = [start("both", epoch_length=len(sites) * parser.get_parsed_content("epoch_length"))]

    rows = []
    for number in range(rounds + 1):
        for name, site in sites.items():
            terms = site.evaluate(ExchangeObject(weights=weights)).metrics
            rows.append({"round": number, "modality": name, **{key: float(value) for key, value in terms.items()}})
        print(f"round {number}: validation loss", *(f"{r['val_loss']:.4f} on {r['modality']}" for r in rows[-2:]))
        torch.save({"model": weights}, Path(output_dir) / "model.pt")
        with (Path(output_dir) / "curve.csv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
        if number == rounds:
            break
        sent = []
        for client in trained:
            client.train(ExchangeObject(weights=weights))
            sent.append(client.get_weights().weights)
        for name, value in weights.items():
            weights[name] = value + (sum(each[name] for each in sent) / len(sent)).to(value.dtype)
    shutil.copy(Path(output_dir) / "ct" / "configuration.json", output_dir)  # what the network of model.pt is
    for client in {*sites.values(), *trained}:
        client.finalize()


if __name__ == "__main__":
    fire.Fire(main)
