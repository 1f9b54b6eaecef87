"""Several supervised views of each sub-volume."""

from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy

import numpy as np
from monai.transforms import Randomizable, Transform


class RepeatSamples(Randomizable, Transform):
    """Apply a crop and hand out each of its samples several times, as a flat list.

    What follows in the ``Compose`` draws anew for each copy, so that each sub-volume comes in several views
    (paper, section 2.4: augmentations "applied twice to each sub-volume").
    A list within a list, as two croppings in a row would give, is not collated by MONAI.

    ``transform`` returns one item or a list of items.

    Example:
        >>> RepeatSamples(lambda item: [item], repeats=2)({"label": 1})
        [{'label': 1}, {'label': 1}]
    """

    def __init__(self, transform: Callable, repeats: int = 2) -> None:
        self.transform = transform
        self.repeats = repeats

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RepeatSamples":
        """Seed the crop."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(state=self.R)
        return self

    def randomize(self, data: object = None) -> None:
        """Nothing is drawn here; the crop draws."""

    def __call__(self, data: Mapping[Hashable, object]) -> list[dict]:
        result = self.transform(data)
        samples = result if isinstance(result, list) else [result]
        # copies, since a transform that follows may work in place
        return [deepcopy(sample) if copy else sample for sample in samples for copy in range(self.repeats)]
