"""Fit the server's working copy of a bundle to what MONAI Label does with it; run by label_server.sh.

    python prepare.py MODEL_FOLDER [CHECKPOINT]

Every training session keeps its full state in a folder of its own, since the server trains again and again in one
place, and a second training must not be taken for the continuation of the first. With a pre-training checkpoint,
sessions start from it: the copy loses models/model.pt, which the server would otherwise load over it. The server brings
its own list of images, and each image to segment: both are checked as the bundle checks its own. Clients get the names
and values of the label map that is written, and the settings of inference that they may change.
"""

import json
import sys
from pathlib import Path

# Shown by clients beside the model; they send what the user chose. A list is a choice, and its first entry the default.
SHOWN = {
    "mirrored_averaging": False,
    "precision": "$['float16', 'float32'] if torch.cuda.is_available() else ['float32', 'bfloat16']",
}
CHOSEN = {
    "overlap": "$float(@displayable_configs#overlap)",
    "tta_axes": "$finetuning.mirror_axes(@task) if @displayable_configs#mirrored_averaging else []",
    "precision": "$str(numpy.atleast_1d(@displayable_configs#precision)[0])",
}
RULES = "in_channels=@in_channels, channels=@task['channels']"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def prepare_inference(folder: Path) -> None:
    content = read(folder / "configs" / "inference.json")
    shown = SHOWN | {"overlap": content["overlap"]}
    if not content["precision"].startswith("$"):  # what the package was built with comes first
        shown["precision"] = list(dict.fromkeys([content["precision"], "float32", "bfloat16"]))
    content |= CHOSEN | {"displayable_configs": shown}
    check = f"data.check_inputs([{{'image': item['image']}}], modality=@task['modality'], {RULES})"
    content["preprocessing"]["transforms"].insert(0, f"$lambda item: {check} and item")
    write(folder / "configs" / "inference.json", content)
    description = folder / "models" / "model.json"
    if description.is_file():  # the server takes the channels of the network for the values of the label map
        metadata = read(folder / "configs" / "metadata.json")
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = read(description)["labels"]
        write(folder / "configs" / "metadata.json", metadata)


def main(place: str, checkpoint: str = "") -> None:
    folder = Path(place)
    config = read(folder / "configs" / "train.json")
    if not (handlers := config.get("train", {}).get("handlers")):
        sys.exit(f"error: {folder}/configs/train.json: found no train.handlers, expected a training bundle's")
    guard = handlers[0]
    if "model.json" in guard.get("records", {}):
        config["imports"] = [*config.get("imports", []), "$import json", "$import pathlib", "$import time"]
        guard["run_dir"] = "$@run_dir + '/session_' + time.strftime('%Y%m%d_%H%M%S')"
        config["initialize"] += [
            "$data.check_datalist([dict(item, modality=@task['modality']) for item in @train#dataset#data],"
            f" policy=@data_policy, {RULES}, labels=[int(value) for value in @task['labels']])"
        ]
        known = "@bundle_root + '/models/model.json'"
        config["description"]["training_patients"] = f"$finetuning.patients_of(@train#dataset#data, {known})"
        prepare_inference(folder)
        # beside the weights, what they are from now on; what the session does not measure anew stays
        new = "json.dumps({**@task, **@description}, indent=4, default=str)"
        config["run"].insert(0, f"$pathlib.Path(@run_dir, 'model.json').write_text({new})")
    # the server goes on after a session, and trains the next one in another process
    config["run"] += ["$engines.unlock_run_dir(@run_dir)"]
    # weights are kept after a validation: a session of few epochs must have one
    config["val_interval"] = 1
    # worker processes forked from a server with threads can hang
    config["num_workers"] = 0
    if checkpoint:
        if not Path(checkpoint).is_file():
            sys.exit(f"error: {checkpoint}: found no such file, expected a pre-training checkpoint")
        config["start"] = "pretrained"
        config["pretrained_checkpoint"] = str(Path(checkpoint).resolve())
        (folder / "models" / "model.pt").unlink(missing_ok=True)
        if (description := folder / "models" / "model.json").is_file():
            write(description, read(description) | {"training_patients": [], "pretraining_patients": []})
    write(folder / "configs" / "train.json", config)


if __name__ == "__main__":
    main(*sys.argv[1:])
