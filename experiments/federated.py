"""Federated pre-training in one process: a site of CT alone, one of MRI alone, and the mean of what they send.

python scripts/package.py build bundles/pretrain --overlays bundles/pretrain/configs/small.yaml --vendor False
python experiments/federated.py dist/pretrain DATA --rounds 3 --output_dir federated
"""

from __future__ import annotations

from pathlib import Path

import fire
import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject


def main(bundle: str, dataset_dir: str, rounds: int, output_dir: str) -> None:
    """Print the validation loss of each site after each round; leave the network in `output_dir/model.pt`."""
    sites = []
    for modality in ("ct", "mr"):
        own = {"dataset_dir": dataset_dir, "modalities": [modality], "run_dir": f"{output_dir}/{modality}"}
        own = {**own, "output_dir": f"{output_dir}/{modality}/evaluation"}
        site = MonaiAlgo(bundle, train_kwargs={**own, "rounds": rounds}, eval_kwargs={**own, "rounds": rounds})
        site.initialize({"fl_client_name": f"site_{modality}"})
        sites.append(site)

    parser = ConfigParser()  # the server has the configuration alone
    parser.read_config(f"{bundle}/configs/train.json")
    weights = {name: value.clone() for name, value in parser.get_parsed_content("network_def").state_dict().items()}
    for number in range(1, rounds + 1):
        sent = []
        for site in sites:
            site.train(ExchangeObject(weights=weights))
            sent.append(site.get_weights().weights)
        for name, value in weights.items():
            weights[name] = value + (sum(each[name] for each in sent) / len(sites)).to(value.dtype)
        losses = [float(site.evaluate(ExchangeObject(weights=weights)).metrics["val_loss"]) for site in sites]
        print(f"round {number}: validation loss {losses[0]:.4f} on CT, {losses[1]:.4f} on MRI", flush=True)
        torch.save({"model": weights}, Path(output_dir) / "model.pt")
    for site in sites:
        site.finalize()


if __name__ == "__main__":
    fire.Fire(main)
