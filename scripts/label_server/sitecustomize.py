"""Let torchvision be imported beside a torch build that it was not compiled for: two operators are declared, none is called.

MONAI Label imports torchvision for its utilities only. Its wheel registers no operators on a torch of another build (the CPU
build, for instance), and the import then fails on ``torchvision::nms``.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _signature in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    try:
        _LIBRARY.define(_signature)
    except RuntimeError:  # the real operators are there
        pass
