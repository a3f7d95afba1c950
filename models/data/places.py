"""Sets of frames that say which frames show the same place.

``Places`` is what training draws from: paths, and for each epoch a list of places, each a list of
frame numbers. Readers of the field's formats are in ``formats.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Frames with fixed places.

    Attributes:
        name: for logs and cards.
        paths: one image file for each frame.
        places: for each place the numbers of its frames, two or more.
    """

    name: str
    paths: tuple[Path, ...]
    places: tuple[Indices, ...] = field(repr=False)

    def draw(self, rng: np.random.Generator) -> Sequence[Indices]:
        """The places of one epoch."""
        return self.places

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ClipPlaces(Places):
    """Frames of video clips: a place is a window of neighbouring frames, and between two windows
    lie frames that belong to neither, because neighbours there would be false negatives.

    Attributes:
        window: frames in a place.
        gap: frames skipped between two places.
    """

    window: int = 4
    gap: int = 3

    def draw(self, rng: np.random.Generator) -> Sequence[Indices]:
        """Windows with another offset in every epoch; ``places`` holds the whole clips."""
        drawn: list[Indices] = []
        stride = self.window + self.gap
        for clip in self.places:
            for start in range(int(rng.integers(0, stride)), len(clip), stride):
                frames = clip[start : start + self.window]
                if len(frames) >= 2:
                    drawn.append(frames)
        return drawn
