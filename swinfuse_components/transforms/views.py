"""The two views of pre-training: each rotated by a known quarter turn and cut, with the targets of the losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor

from .cutout import RandInnerCutout


class RandTwoViewsd(Randomizable, MapTransform):
    """Make the views x_i and x_j of a sub-volume, with the pretext tasks' targets (paper, section 2.2, Fig. 2).

    Each view by itself: an optional intensity augmentation, a rotation by 0, 90, 180 or 270 degrees about one axis,
    an inner cutout. The result is written to new keys, as plain tensors (no metadata: the grid is gone after a random
    crop, and plain tensors are faster): for each of ``_i`` and ``_j``

    - ``view``: (C, D, H, W), rotated and cut;
    - ``target``: (C, D, H, W), rotated, not cut: what inpainting restores, or its description (C', D, H, W);
    - ``rotation``: int64 scalar in 0..3, the number of quarter turns;
    - ``cutout``: (1, D, H, W), bool, True where voxels were removed;

    and with ``same_rotation`` ``shown``: (1, D, H, W), bool, True in the foreground that neither view lacks.

    Args:
        keys: one key makes both views of that image (``views``); two keys make one view of each, for a CT and an MRI
            of the same place (``pairs``).
        rotation_axes: the two spatial axes of the plane in which views are rotated; ``(0, 1)`` turns about the third
            axis, the body's long one for volumes in RAS orientation. Both must be of the same length.
        cutout: the inner cutout; :class:`RandInnerCutout` with its defaults if not given.
        augment: transform of a tensor (C, D, H, W), drawn anew for each view, e.g. random intensity curves.
        same_rotation: rotate both views alike, so that a voxel shows the same place in both.
        describe: transform of the target (C, D, H, W) without metadata, e.g. :class:`MindSSC`, so that inpainting
            restores shapes instead of intensities.
        augment_target: whether the target shows the augmented intensities (those left in the view) or the original
            ones.
        allow_missing_keys: see :class:`~monai.transforms.MapTransform`.

    Raises:
        ValueError: if there are not one or two keys, the rotation axes are not two different ones, or the sub-volume
            does not fit them.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        rotation_axes: Sequence[int] = (0, 1),
        cutout: RandInnerCutout | None = None,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
        augment_target: bool = True,
        same_rotation: bool = False,
        describe: Callable[[torch.Tensor], torch.Tensor] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) not in (1, 2):
            raise ValueError(f"keys={list(self.keys)}: expected one image, or a CT and an MRI")
        if len(rotation_axes) != 2 or len({axis % 3 for axis in rotation_axes}) != 2:
            raise ValueError(f"rotation_axes={list(rotation_axes)}: expected two different spatial axes out of 0, 1, 2")
        self.rotation_axes = tuple(axis % 3 for axis in rotation_axes)
        self.cutout = RandInnerCutout() if cutout is None else cutout
        self.augment = augment
        self.augment_target = augment_target
        self.same_rotation = same_rotation
        self.describe = describe

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandTwoViewsd:
        """Seed the rotations, the cutout and the augmentation together."""
        super().set_random_state(seed, state)
        limit = np.iinfo(np.uint32).max
        self.cutout.set_random_state(seed=int(self.R.randint(limit, dtype=np.uint32)))
        if isinstance(self.augment, Randomizable):
            self.augment.set_random_state(seed=int(self.R.randint(limit, dtype=np.uint32)))
        return self

    def randomize(self, data: object = None) -> int:
        """Draw a number of quarter turns, 0 to 3 with equal chance."""
        return int(self.R.randint(4))

    def _view(self, image: torch.Tensor, turns: int) -> dict[str, torch.Tensor]:
        axes = [axis + 1 for axis in self.rotation_axes]
        augmented = image if self.augment is None else convert_to_tensor(self.augment(image), track_meta=False)
        visible = torch.rot90(augmented, turns, axes)
        view, mask = self.cutout(visible)
        target = visible if self.augment_target else torch.rot90(image, turns, axes)
        described = target if self.describe is None else self.describe(target)
        return {
            "view": view.contiguous(),
            "target": described.contiguous(),
            "rotation": torch.tensor(turns, dtype=torch.int64),
            "cutout": mask,
        }

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        item: dict[Hashable, Any] = dict(data)
        turns, axes = 0, [axis + 1 for axis in self.rotation_axes]
        for suffix, key in zip("ij", (self.keys[0], self.keys[-1]), strict=True):
            image = convert_to_tensor(item[key], dtype=torch.float32, track_meta=False)
            first, second = (image.shape[axis + 1] for axis in self.rotation_axes)
            if image.ndim != 4 or first != second:
                raise ValueError(
                    f"'{key}' of shape {tuple(image.shape)}: expected (C, D, H, W) with equal sides along the rotation "
                    f"axes {self.rotation_axes}, so that a quarter turn keeps the shape"
                )
            turns = turns if self.same_rotation and suffix == "j" else self.randomize()
            item.update({f"{name}_{suffix}": value for name, value in self._view(image, turns).items()})
            if self.same_rotation:
                seen = torch.rot90(image > image.min() + 0.05 * (image.max() - image.min()), turns, axes).any(0, True)
                item["shown"] = seen & ~item[f"cutout_{suffix}"] & (item["shown"] if suffix == "j" else True)
        return item
