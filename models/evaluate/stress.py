"""Stress rows: what a camera or the world does to queries that the map does not know.

Each row changes the queries of a trial (``gray-both`` the map too); everything else stays. What is
drawn depends on the number of the query alone, so that every describer meets the same frames.
``mirrored`` is another place: the fewer of its queries find the original, the better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.models.evaluate.protocols import Trial, turned

#: Gains of red, green and blue under another light.
BALANCE = (1.2, 1.0, 0.75)
#: Light that reaches the sensor at night, and the noise of its gain, in levels of 0..255.
LOW_LIGHT, LOW_LIGHT_NOISE = 0.2, 6.0
#: Width and height of who stands in front, as fractions of the frame: a third of it.
IN_FRONT = (0.4, 0.833)
ROLL_DEG = 15.0

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def gray(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A camera without colour."""
    return image.convert("L").convert("RGB")


def other_balance(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Red by 1.2, blue by 0.75."""
    return _image(np.asarray(image, np.float64) * BALANCE)


def low_light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A fifth of the light, and noise."""
    levels = np.asarray(image, np.float64) * LOW_LIGHT
    return _image(levels + rng.normal(0, LOW_LIGHT_NOISE, levels.shape))


def occluded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Somebody in front: a third of the frame in one colour, somewhere across it, to the bottom."""
    levels = np.array(image, np.float64)
    height, width = levels.shape[:2]
    left = round(rng.uniform(0, 1 - IN_FRONT[0]) * width)
    right, top = left + round(IN_FRONT[0] * width), height - round(IN_FRONT[1] * height)
    hidden = levels[top:, left:right]
    hidden[:] = rng.uniform(20, 200, 3) + rng.normal(0, 8, hidden.shape)
    return _image(levels)


def rolled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by 15 degrees to either side, and enlarged until no corner is empty."""
    return turned(image, ROLL_DEG if rng.random() < 0.5 else -ROLL_DEG)


def mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right exchanged: a place that is not there."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


#: Row -> change of the queries, change of the map.
STRESS: dict[str, tuple[Change, Change | None]] = {
    "gray-query": (gray, None),
    "gray-both": (gray, gray),
    "white-balance": (other_balance, None),
    "low-light": (low_light, None),
    "occluded": (occluded, None),
    "roll": (rolled, None),
    "mirrored": (mirrored, None),
}


def stressed(trial: Trial) -> Iterator[tuple[str, Trial]]:
    """Every row and its trial."""
    for row, (of_queries, of_map) in STRESS.items():
        gallery = trial.gallery if of_map is None else Changed(trial.gallery, of_map)
        yield row, replace(trial, queries=Changed(trial.queries, of_queries), gallery=gallery)


class Changed(Sequence[Image.Image]):
    """Images that are changed when they are looked at: a test set may hold many."""

    def __init__(
        self,
        images: Sequence[Image.Image],
        change: Change,
        numbers: range | None = None,
        seed: int = 7,
    ) -> None:
        self._images, self._change, self._seed = images, change, seed
        self._numbers = range(len(images)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> Changed: ...

    def __getitem__(self, index: int | slice) -> Image.Image | Changed:
        if isinstance(index, slice):
            return Changed(self._images, self._change, self._numbers[index], self._seed)
        number = self._numbers[index]
        return self._change(self._images[number], np.random.default_rng([self._seed, number]))


def _image(levels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(levels, 0, 255)).astype(np.uint8))
