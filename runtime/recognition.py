"""Which accepted answers say that a place was recognised: those of a robot that came back to it.

In: the places that answers name, one after the other. Out: whether a robot stands where it was
within the last minute. Called by ``PlaceMap.recognised``.
"""

from __future__ import annotations

import numpy as np

from tatvpr_edge.runtime.pruning import redundant_score
from tatvpr_edge.spec.maptypes import MapInfo, Rows
from tatvpr_edge.spec.scores import pair_scores

#: An accepted match confirms its place where that is older than the frame by so many seconds, and
#: neither it nor one like it was named for as long.
RECOGNISED_AFTER_S = 60.0


class Lately:
    """The spots that answers of the last minute named, each by the place that was named first. Not
    to be shared between threads."""

    def __init__(self) -> None:
        self._spots: list[tuple[float, Rows]] = []  # when it was named last, and what it holds

    def copy(self) -> Lately:
        """Another one that knows the same."""
        other = Lately()
        other._spots = list(self._spots)
        return other

    def stays(self, info: MapInfo, row: Rows, time_s: float) -> bool:
        """Whether a place like the one that is named now was named within the last minute. A robot
        that stands, and adds what it sees, is answered by one frame of its stop after the other.

        Args:
            row: what the place holds in its map's first band: one row.
        """
        left = [(at, of) for at, of in self._spots if abs(time_s - at) < RECOGNISED_AFTER_S]
        every = [row, *(of for _, of in left)]
        norms = None
        if row.norms is not None:
            norms = np.concatenate([of.norms for of in every if of.norms is not None])
        data = np.concatenate([of.data for of in every])
        others = np.arange(1, len(every))
        alike = pair_scores(data, norms, info.dim, np.zeros_like(others), others)
        spot = int(np.argmax(alike)) if len(left) else -1
        stays = spot >= 0 and bool(alike[spot] >= redundant_score(info))
        if stays:
            left[spot] = (time_s, left[spot][1])
        else:  # a copy: the row may be of a file that is replaced meanwhile
            kept = None if row.norms is None else row.norms.copy()
            left.append((time_s, Rows(row.data.copy(), kept)))
        self._spots = left
        return stays
