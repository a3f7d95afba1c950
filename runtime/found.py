"""What a search of a map finds: places with their scores, and how far they can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.search import Pose
from tatvpr_edge.runtime.tracking import Tracked
from tatvpr_edge.spec.maptypes import Band


@dataclass(frozen=True)
class Candidate:
    """One place of an answer.

    Attributes:
        place: its number in the map, from 0.
        score: cosine (int8 maps) or ``1 - 2 * hamming / dim`` (binary maps), in [-1, 1]; of weighed
            maps, where it is one of the best 16 or a path's, the same with every bit weighed
            (``spec/scores.py``).
        tag: the text stored with it, as a rule the name of its frame.
        pose: (x, y, z, qx, qy, qz, qw) in metres, in the map's pose frame (degrees of longitude
            and latitude for x and y where that is geographic); None where unknown. Single unknown
            numbers are NaN.
    """

    place: int
    score: float
    tag: str
    pose: Pose | None


@dataclass(frozen=True)
class Found:
    """Answer of a search.

    Attributes:
        candidates: best first; none where every place was left out.
        band: the band that was searched.
        accepted: whether the best is taken for right; None where the map is not calibrated, False
            where there is no candidate.
        margin: score of the best less the best score elsewhere; None where the calibration does
            not ask for it.
        confidence: how probable it is that the best is right, 0..1; None likewise.
        scores: float32 [places] where asked for: every score, -infinity for what was left out; of
            weighed maps every place's bits are weighed.
        tracked: of :meth:`PlaceMap.follow`: what the last frames say; ``accepted``, ``margin`` and
            ``confidence`` are then its.
        mark: what the best place is known by, for :meth:`PlaceMap.confirm`; None where none is.
    """

    candidates: tuple[Candidate, ...]
    band: Band
    accepted: bool | None
    margin: float | None = None
    confidence: float | None = None
    scores: NDArray[np.float32] | None = None
    tracked: Tracked | None = None
    mark: str | None = field(default=None, repr=False, compare=False)


def known(value: float) -> float | None:
    """A number of the core's, whose NaN says that it is not known."""
    return None if math.isnan(value) else value
