"""Draw what each transform of the random contrast does to one slice of a real CT.

    python experiments/carry_across/pictures.py IMAGE LABEL docs/images/random_contrast.png

The picture of ``docs/carry_across.md`` was made on a public CT (head and neck, OpenKBP), window -125 to 275 HU.
"""

from __future__ import annotations

import sys

import matplotlib
import torch
from monai.transforms import Compose

from swinfuse_components import transforms
from swinfuse_components.transforms import RandConvolution, RandCurve, RandLabelCurves, RandRegionContrast

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(image_path: str, label_path: str, output: str, draws: int = 4, seed: int = 2) -> None:
    """Write the picture: a row for each transform, a column for each draw."""
    read = Compose(
        [
            *transforms.load_on_grid("image", (2, 2, 4), labels=["label"]),
            transforms.ModalityIntensityd("image", "ct", ct_window=(-125, 275)),
        ]
    )
    item = read({"image": image_path, "label": label_path})
    image, label = item["image"].as_tensor().float(), item["label"].as_tensor()
    middle = int((label > 0).sum((0, 1, 2)).argmax())
    x, y = torch.nonzero(image[0, :, :, middle] > 0.1, as_tuple=True)
    image, label = (volume[:, x.min() - 8 : x.max() + 8, y.min() - 8 : y.max() + 8] for volume in (image, label))
    rows = {
        "GIN": RandConvolution(),
        "GIN, rescaled": RandConvolution(rescale=True),
        "GIN + IPA": transforms.RandSpatialBlend(RandConvolution()),
        "one curve": RandCurve(),
        "curves by label": RandLabelCurves(),
        "clusters, labels": RandRegionContrast(),
    }
    figure, axes = plt.subplots(len(rows) + 1, draws, figsize=(1.8 * draws, 2.3 * len(rows) + 2))
    for (name, transform), row in zip(rows.items(), axes[1:], strict=True):
        transform.set_random_state(seed)
        for axis in row:
            axis.imshow(transform(image, label)[0, :, :, middle].T, cmap="gray", origin="lower")
        row[0].set_title(name, loc="left", fontsize=9)
    described = transforms.MindSSC()(image)
    axes[0, 0].imshow(image[0, :, :, middle].T, cmap="gray", origin="lower")
    axes[0, 0].set_title("the CT slice", loc="left", fontsize=9)
    outlined = torch.where(label > 0, label.float(), torch.nan)[0, :, :, middle].T
    axes[0, 1].imshow(image[0, :, :, middle].T, cmap="gray", origin="lower")
    axes[0, 1].imshow(outlined, cmap="tab10", origin="lower", alpha=0.6)
    axes[0, 1].set_title("its labels", loc="left", fontsize=9)
    for axis, channel in zip(axes[0, 2:], (0, 7)):
        axis.imshow(described[channel, :, :, middle].T, cmap="gray", origin="lower")
        axis.set_title(f"MIND-SSC, channel {channel + 1}", loc="left", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(output, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:4])
