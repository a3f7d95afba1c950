"""A place map at query time: opened, checked against the model, searched."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Asked, Hit, Part, Table
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.manifest import ModelEntry
from tatvpr_edge.spec.mapjournal import StoredMap, read_map
from tatvpr_edge.spec.maptypes import Band, Calibration, MapInfo, calibrated

Pose = tuple[float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Candidate:
    """One place of an answer.

    Attributes:
        place: its number in the map, from 0.
        score: cosine (int8 maps) or ``1 - 2 * hamming / dim`` (binary maps), in [-1, 1].
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
        scores: float32 [places] where asked for: every score, -infinity for what was left out.
    """

    candidates: tuple[Candidate, ...]
    band: Band
    accepted: bool | None
    margin: float | None = None
    confidence: float | None = None
    scores: NDArray[np.float32] | None = None


class PlaceMap:
    """A map as it stood when it was opened; what others add later is seen by opening it again.

    Args:
        path: a ``.placemap``.
        model: the model of an artifact; a map of another one is refused.
        engine: that artifact's loaded code, which searches. Without it the map can be looked at,
            not searched.

    Raises:
        MapError: by name of the fault: truncated, altered, newer, of another model.
    """

    def __init__(
        self, path: str | Path, model: ModelEntry | None = None, engine: Engine | None = None
    ) -> None:
        self.path = Path(path)
        self._stored: StoredMap = read_map(path)
        if model is not None:
            _check_model(self.path, self.info, model)
        self._engine = engine
        self._table = None if engine is None else Table(engine, self.info, self._parts())

    def judging(self, calibrations: Sequence[Calibration | None]) -> PlaceMap:
        """The same places, in memory, judged by other calibrations: one for each band.

        Raises:
            MapError: a calibration cannot be stored.
        """
        base = replace(self._stored.base, info=calibrated(self.info, calibrations))
        other = copy.copy(self)
        other._stored = replace(self._stored, base=base)
        other._table = None
        if self._engine is not None:
            other._table = Table(self._engine, other.info, other._parts())
        return other

    def searched_by(self, model: ModelEntry, engine: Engine) -> PlaceMap:
        """The same places, searched by an artifact's loaded code.

        Raises:
            MapError: the map is of another model.
        """
        _check_model(self.path, self.info, model)
        if self._engine is engine:
            return self
        other = copy.copy(self)
        other._engine, other._table = engine, Table(engine, self.info, self._parts())
        return other

    @property
    def info(self) -> MapInfo:
        """Model, kind, dimension, bands and pose frame."""
        return self._stored.base.info

    @property
    def stored(self) -> StoredMap:
        """Base file and journal."""
        return self._stored

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def drives(self) -> int:
        """Drives that its places come from: one more than the highest number of one."""
        both = (self._stored.base.moments, self._stored.added.moments)
        return max((int(part["drive"].max()) + 1 for part in both if len(part)), default=0)

    def tag(self, place: int) -> str:
        """The text stored with ``place``."""
        base = self._stored.base
        return base.tag(place) if place < len(base) else self._stored.added.tags[place - len(base)]

    def pose(self, place: int) -> NDArray[np.float64]:
        """Pose float64 [7] of ``place``, NaN where unknown."""
        base = self._stored.base
        if place < len(base):
            return base.pose(place)
        pose: NDArray[np.float64] = self._stored.added.poses[place - len(base)]
        return pose

    def search(
        self,
        descriptor: NDArray[np.float32],
        k: float,
        tokens: float = 1.0,
        count: int = 1,
        *,
        first: int = 0,
        end: int | None = None,
        without: NDArray[np.bool_] | None = None,
        near: Sequence[float] | None = None,
        radius: float | None = None,
        scores: bool = False,
    ) -> Found:
        """The ``count`` places most like ``descriptor``, best first; ties go to the lower place.

        The band made at the nearest higher k is searched, else the highest (docs/placemap.md).

        Args:
            descriptor: float32 [descriptor_size].
            first, end: only places first .. end - 1 are looked at.
            without: bool [places]: those that are left out.
            near, radius: only places within so many metres of a position or pose (x, y, ...); a
                place of unknown position is then left out.
            scores: give the score of every place as well.

        Raises:
            MapError: the map is empty or opened without an engine, or the descriptor has another
                size, is zero or not finite.
            UsageError: an argument is out of range.
        """
        if self._table is None:
            raise MapError(
                f"map {self.path} was opened without an artifact's code, which searches: give "
                "PlaceMap(path, engine=...), or use Localizer(artifact, map)"
            )
        every = np.empty(len(self), np.float32) if scores else None
        asked = Asked(k, tokens, count, first, end, without, near, radius)
        band, hits = self._table.search(descriptor, asked, every)
        best = hits[0] if hits else None
        return Found(
            candidates=tuple(self._candidate(hit) for hit in hits),
            band=self.info.bands[band],
            accepted=False if best is None else best.accepted,
            margin=None if best is None else _known(best.margin),
            confidence=None if best is None else _known(best.confidence),
            scores=every,
        )

    def _candidate(self, hit: Hit) -> Candidate:
        return Candidate(hit.place, hit.score, self.tag(hit.place), hit.pose)

    def _parts(self) -> list[Part]:
        base, added = self._stored.base, self._stored.added
        parts = [Part(len(base), base.rows, base.stored_poses, base.moments)]
        if len(added):
            parts.append(Part(len(added), added.rows, added.poses, added.moments))
        return parts


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _check_model(path: Path, info: MapInfo, model: ModelEntry) -> None:
    if info.model_hash != model.hash:
        raise MapError(
            f"map {path} was made with another model ({info.model_hash[:12]}) than the "
            f"artifact's ({model.hash[:12]}): make the map again with this artifact"
        )
    if info.descriptor_size != model.descriptor_size:
        raise MapError(
            f"map {path} is of descriptors of {info.descriptor_size} numbers, the artifact's have "
            f"{model.descriptor_size}: make the map again with this artifact"
        )
