"""A drive that is added to a map, one place after another.

In: descriptors, poses and tags, as they come. Out: places that are on the disk. Called by
``MapWriter`` and ``PlaceMap``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.growing import Added, Moment, mark_of
from tatvpr_edge.runtime.mapjournal import Appended, append_drive, map_file, read_map
from tatvpr_edge.spec.maptypes import MapInfo, make_places

#: Of so many of its last places a drive is known in a map that was written anew.
_LAST = 1000


class Drive:
    """The places that one object adds to the map at ``path``. One thread at a time; a forked
    child's are another drive, and so are those in another map that took the name of the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._after_fork()
        tell_children(self)

    def _after_fork(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._number: int | None = None  # until its first place stands
        self._order = 0
        self._marks = deque[str](maxlen=_LAST)  # of its last places
        self._file: object = None  # that took the last of them

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
        if self._number is not None and map_file(self._path) != self._file and not self._stands():
            self._begin()
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
        added = done.places
        moment = added.moments[0]
        self._number = int(moment["drive"])
        self._marks.append(mark_of(moment, added.rows[0].data[0].tobytes()))
        self._order += 1
        self._file = done.file
        return done

    def _stands(self) -> bool:
        """Whether places of it are left in the map, which was written anew: a drive in another map
        may have its number."""
        stored = read_map(self._path)
        now, marks = Moment.of(stored.base, Added(stored.added), None), set(self._marks)
        moments, first = np.concatenate(now.moments()), self._order - len(marks)
        own = (moments["order"] >= first) & (moments["order"] < self._order)
        own &= moments["drive"] == self._number
        for place in np.flatnonzero(own):
            moment, _, row = now.stored(int(place))
            if mark_of(moment, row.tobytes()) in marks:
                return True
        return False
