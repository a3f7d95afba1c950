"""A drive that is added to a map, one place after another.

In: descriptors, poses and tags, as they come. Out: places that are on the disk. Called by
``MapWriter`` and ``PlaceMap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.mapjournal import Appended, append_drive
from tatvpr_edge.spec.maptypes import MapInfo, make_places


class Drive:
    """The places that one object adds to the map at ``path``. One thread at a time; a forked
    child's are another drive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._after_fork()
        tell_children(self)

    def _after_fork(self) -> None:
        self._number: int | None = None  # until its first place stands
        self._order = 0

    def add(
        self,
        info: MapInfo,
        descriptors: Sequence[NDArray[np.float32]],
        pose: NDArray[np.float64],
        tag: str,
        time_s: float,
    ) -> Appended:
        """Add the next place.

        Args:
            info: of the map.
            descriptors: float32 [descriptor_size], one a band.
            pose: float64 [7], NaN where unknown.
            time_s: seconds since 1970; NaN: unknown.

        Raises:
            MapError: nothing was added; the text says why.
        """
        places = make_places(
            info,
            [np.asarray(row, np.float32)[None] for row in descriptors],
            pose[None],
            [tag],
            times=[time_s],
            orders=[self._order],
            drives=0 if self._number is None else self._number,
        )
        done = append_drive(self._path, places, made_for=info, own=self._number is None)
        self._number = int(done.places.moments["drive"][0])
        self._order += 1
        return done
