"""Sets of frames that say which frames show the same place.

``Places`` is what training draws from: paths, and for each epoch a list of places, each a list of
frame numbers. Readers of the field's formats are in ``formats.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]


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

    @property
    def fewest(self) -> int:
        """Places that every epoch has."""
        return len(self.places)

    def alone(self) -> Places:
        """The same places, without the frames that belong to none."""
        used = np.unique(np.concatenate(self.places))
        places = tuple(np.searchsorted(used, members) for members in self.places)
        return replace(self, paths=tuple(self.paths[i] for i in used), places=places)

    def candidates(self, rng: np.random.Generator) -> Indices:
        """Frames among which rivals are looked for: one of each place."""
        return np.array([rng.choice(members) for members in self.places], dtype=np.int64)

    def apart(self, frames: Indices, others: Indices | None = None) -> Bools:
        """Which of ``frames [n]`` surely show other places than which of ``others [m]``,
        ``[n, m]``; None: of each other."""
        place = np.full(len(self.paths), -1, np.int64)
        for number, members in enumerate(self.places):
            place[members] = number
        return np.asarray(place[frames][:, None] != place[frames if others is None else others])

    def same(self, frames: Indices) -> Bools:
        """Which of ``frames`` surely show one place, ``[n, n]``. Pairs that are neither this nor
        :meth:`apart` are nobody's examples."""
        return ~self.apart(frames)

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ClipPlaces(Places):
    """Frames of video clips: a place is a window of neighbouring frames, and between two windows
    lie frames that belong to neither, because neighbours there would be false negatives.

    Attributes:
        territories: of each clip; clips of one territory (a floor) may cross each other, so their
            frames are not surely different places.
        window: frames in a place.
        gap: frames skipped between two places.
        near: frames of a clip that lie no further apart than this show one place; 0: all frames
            of a window do.
    """

    territories: tuple[str, ...] = ()
    window: int = 4
    gap: int = 3
    near: int = 0

    def candidates(self, rng: np.random.Generator) -> Indices:
        """Every frame of a clip."""
        return np.concatenate(self.places)

    def apart(self, frames: Indices, others: Indices | None = None) -> Bools:
        """Frames of other territories, and those further off in the same clip."""
        of, theirs, distance = self._where(frames, frames if others is None else others)
        names = np.array(self.territories or [str(i) for i in range(len(self.places))])
        far = distance >= self.window + self.gap
        elsewhere = names[of][:, None] != names[theirs]
        return np.asarray(elsewhere | ((of[:, None] == theirs) & far))

    def same(self, frames: Indices) -> Bools:
        """Frames of one clip within ``near`` of each other."""
        of, theirs, distance = self._where(frames, frames)
        return np.asarray((of[:, None] == theirs) & (distance <= (self.near or self.window - 1)))

    def _where(self, frames: Indices, others: Indices) -> tuple[Indices, Indices, Indices]:
        """The clips of ``frames [n]`` and of ``others [m]``, and how many frames of a clip lie
        between any two ``[n, m]``."""
        clip = np.full(len(self.paths), -1, np.int64)
        position = np.zeros(len(self.paths), np.int64)
        for number, members in enumerate(self.places):
            clip[members], position[members] = number, np.arange(len(members))
        between = np.abs(position[frames][:, None] - position[others])
        return clip[frames], clip[others], between

    def draw(self, rng: np.random.Generator) -> Sequence[Indices]:
        """Windows with another offset in every epoch, of a short clip one at least; ``places``
        holds the whole clips."""
        drawn: list[Indices] = []
        stride = self.window + self.gap
        for clip in self.places:
            first = int(rng.integers(0, stride)) % max(1, len(clip) - 1)
            for start in range(first, len(clip), stride):
                frames = clip[start : start + self.window]
                if len(frames) >= 2:
                    drawn.append(frames)
        return drawn

    @property
    def fewest(self) -> int:
        """Windows that are left at the worst offset."""
        stride = self.window + self.gap
        return sum(max(len(clip) > 1, (len(clip) - 1) // stride) for clip in self.places)
