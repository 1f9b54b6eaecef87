"""Let torchvision be imported beside a torch build that it was not compiled for.

MONAI Label imports torchvision for its utilities only. Its wheel registers no operators on another build of torch (the
CPU build, for instance), and the import then fails on ``torchvision::nms``. Two operators are declared; none is called.
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
