"""Fit the server's working copy of a bundle to what MONAI Label does with it; run by label_server.sh.

    python prepare.py MODEL_FOLDER [CHECKPOINT]

Every training session keeps its full state in a folder of its own, since the server trains again and again in one
place, and a second training must not be taken for the continuation of the first. With a pre-training checkpoint,
sessions start from it: the copy loses models/model.pt, which the server would otherwise load over it. The server brings
its own list of images, and each image to segment: both are checked as the bundle checks its own.
"""

import json
import sys
from pathlib import Path


def main(folder: str, checkpoint: str = "") -> None:
    path = Path(folder) / "configs" / "train.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    guard = config["train"]["handlers"][0]
    if "model.json" in guard.get("records", {}):
        config["imports"] = [*config.get("imports", []), "$import time"]
        guard["run_dir"] = "$@run_dir + '/session_' + time.strftime('%Y%m%d_%H%M%S')"
        rules = "in_channels=@in_channels, channels=@task['channels']"
        config["initialize"] += [
            "$data.check_datalist([dict(item, modality=@task['modality']) for item in @train#dataset#data],"
            f" policy=@data_policy, {rules}, labels=[int(value) for value in @task['labels']])"
        ]
        inference = Path(folder) / "configs" / "inference.json"
        content = json.loads(inference.read_text(encoding="utf-8"))
        check = f"data.check_inputs([{{'image': item['image']}}], modality=@task['modality'], {rules})"
        content["preprocessing"]["transforms"].insert(0, f"$lambda item: {check} and item")
        inference.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    # weights are kept after a validation: a session of few epochs must have one
    config["val_interval"] = 1
    # worker processes forked from a server with threads can hang
    config["num_workers"] = 0
    if checkpoint:
        if not Path(checkpoint).is_file():
            sys.exit(f"error: {checkpoint}: found no such file, expected a pre-training checkpoint")
        config["start"] = "pretrained"
        config["pretrained_checkpoint"] = str(Path(checkpoint).resolve())
        (Path(folder) / "models" / "model.pt").unlink(missing_ok=True)
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
