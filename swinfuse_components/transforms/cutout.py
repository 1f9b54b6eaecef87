"""Inner cutout that also says what it removed."""

import numpy as np
import torch
from monai.transforms import RandCoarseDropout, Randomizable, Transform


class RandInnerCutout(Randomizable, Transform):
    """Fill random boxes of a sub-volume with noise, and return the mask of what was removed (paper, section 2.2).

    The boxes are drawn by MONAI's :class:`~monai.transforms.RandCoarseDropout`; the noise is uniform over the range of
    the sub-volume. What MONAI lacks is the mask, a box size relative to the sub-volume, and a bound: boxes that would
    take the removed share over ``max_removed`` are left out, so that there is always enough left to inpaint from.

    Args:
        holes: least and greatest number of boxes drawn.
        hole_size: least and greatest side of a box, as a share of the sub-volume's side, each axis by itself.
        max_removed: greatest share of the voxels that may be removed, below 1.

    Settings out of range, among them a greatest box that alone exceeds ``max_removed``, are a ValueError.
    """

    def __init__(
        self, holes: tuple[int, int] = (8, 24), hole_size: tuple[float, float] = (0.1, 0.4), max_removed: float = 0.3
    ) -> None:
        if len(holes) != 2 or not 1 <= holes[0] <= holes[1]:
            raise ValueError(f"holes={list(holes)}: expected two numbers, 1 <= least <= greatest")
        if len(hole_size) != 2 or not 0 < hole_size[0] <= hole_size[1] < 1:
            raise ValueError(f"hole_size={list(hole_size)}: expected two shares of the side, 0 < least <= greatest < 1")
        if not 0 < max_removed < 1:
            raise ValueError(f"max_removed={max_removed}: expected a share between 0 and 1")
        if hole_size[1] ** 3 > max_removed:
            raise ValueError(f"a box of {hole_size[1]} of each side alone removes more than max_removed={max_removed}")
        self.holes = tuple(holes)
        self.hole_size = tuple(hole_size)
        self.max_removed = max_removed
        self.mask = np.zeros(0, dtype=bool)

    def randomize(self, data: tuple[int, ...]) -> None:
        """Draw the boxes for a sub-volume of the spatial size ``data``."""
        least, greatest = ([max(int(side * share), 1) for side in data] for share in self.hole_size)
        boxes = RandCoarseDropout(self.holes[0], least, max_holes=self.holes[1], max_spatial_size=greatest, prob=1.0)
        boxes.set_random_state(state=self.R)
        boxes.randomize(data)
        self.mask = np.zeros(data, dtype=bool)
        removed, limit = 0, self.max_removed * self.mask.size
        for box in boxes.hole_coords:
            inside = self.mask[box[1:]]
            added = inside.size - int(inside.sum())
            if removed + added <= limit:
                inside[...] = True
                removed += added

    def __call__(self, img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut ``img``, (C, …): the cut copy, and the boolean mask (1, …) of the voxels that were removed."""
        self.randomize(tuple(img.shape[1:]))
        mask = torch.from_numpy(self.mask)
        cut = img.clone()
        low, high = float(img.min()), float(img.max())
        noise = self.R.uniform(low, high, size=(img.shape[0], int(self.mask.sum())))
        cut[:, mask] = torch.as_tensor(noise, dtype=img.dtype)
        return cut, mask[None]
