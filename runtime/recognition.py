"""Which accepted answers say that a place was recognised: those of a robot that came back to it.

In: the places that answers name, one after the other. Out: whether a robot stands where it was
within the last minute. Called by ``PlaceMap.recognised``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
        self._named_s: NDArray[np.float64] = np.zeros(0)  # when each was named last
        self._spots: Rows | None = None  # what they hold; None: there were none yet

    def copy(self) -> Lately:
        """Another one that knows the same."""
        other = Lately()
        other._named_s, other._spots = self._named_s.copy(), self._spots
        return other

    def stays(self, info: MapInfo, row: Rows, time_s: float) -> bool:
        """Whether a place like the one that is named now was named within the last minute. A robot
        that stands, and adds what it sees, is answered by one frame of its stop after the other.

        Args:
            row: what the place holds in its map's first band: one row.
        """
        left = np.abs(time_s - self._named_s) < RECOGNISED_AFTER_S
        spots = row if self._spots is None else self._spots
        # In arrays, the new one last: at 30 frames a second there may be a thousand.
        data = np.concatenate([spots.data[: len(left)][left], row.data])
        norms = None
        if spots.norms is not None and row.norms is not None:
            norms = np.concatenate([spots.norms[: len(left)][left], row.norms])
        named_s, others = self._named_s[left], np.arange(len(data) - 1)
        alike = pair_scores(data, norms, info.dim, np.full_like(others, len(others)), others)
        spot = int(np.argmax(alike)) if len(others) else -1
        stays = spot >= 0 and bool(alike[spot] >= redundant_score(info))
        if stays:
            named_s[spot] = time_s
        else:
            named_s = np.append(named_s, time_s)
        self._named_s, self._spots = named_s, Rows(data, norms)
        return stays
