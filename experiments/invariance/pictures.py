"""Draw the two views and the targets of the dense pre-training, on a registered CT and MRI and on synthetic shapes.

python experiments/invariance/pictures.py SYNTHRAD_LIKE docs/images/invariance_views.png
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser

from swinfuse_components.data import synthetic_volumes, synthrad_datalist
from swinfuse_components.evaluation.features import paired_crops
from swinfuse_components.transforms import MindSSC
from swinfuse_components.visualization.plots import new_figure, save_figure

CONFIGS = Path(__file__).resolve().parents[2] / "bundles/pretrain/configs"
CT_WINDOW = (-125.0, 275.0)


def main(pairs: str, output: str, patient: int = 3, seed: int = 4) -> None:
    """Write the picture: a row for each pair of images, columns for what the network sees and what it is to restore."""
    parser = ConfigParser()
    parser.read_config(CONFIGS / "train.json")
    parser.update({"image_keys": ["first", "second"]})
    two_views = parser.get_parsed_content("train::two_views").set_random_state(seed)
    with tempfile.TemporaryDirectory() as folder:
        made = synthrad_datalist(synthetic_volumes(folder, 2, size=64, spacing=(4, 4, 4), ct_window=CT_WINDOW))
        listed = [synthrad_datalist(pairs)[patient], made[1]]
        crops = paired_crops(listed, roi_size=(64,) * 3, spacing=(4, 4, 4), ct_window=CT_WINDOW, crops=1, seed=seed)
    (ct, made_ct), (mr, made_mr) = crops.ct, crops.mr
    rows = {
        "one CT, two contrasts": (ct, ct),
        "one MRI, two contrasts": (mr, mr),
        "CT and MRI of one place": (ct, mr),
        "synthetic, two appearances": (made_ct, made_mr),
    }
    titles = ["image 1", "image 2", "view 1", "view 2", "target: view 1", "target: MIND-SSC, mean"]
    figure, axes = new_figure(len(rows), len(titles), width=1.7, height=1.8)
    for line, (name, (first, second)) in zip(axes, rows.items()):
        item = two_views({"first": first, "second": second})
        turned = torch.rot90(first, int(item["rotation_i"]), (1, 2))
        shown = [
            first,
            second,
            item["view_i"],
            item["view_j"],
            item["target_i"],
            MindSSC()(turned).mean(0, keepdim=True),
        ]
        for axis, volume in zip(line, shown):
            middle = volume.shape[-1] // 2
            axis.imshow(np.asarray(volume[0, :, :, middle]).T, cmap="gray", origin="lower", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=7)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    save_figure(figure, output)


if __name__ == "__main__":
    fire.Fire(main)
