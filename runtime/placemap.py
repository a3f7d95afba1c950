"""A place map at query time: opened, checked against the model, searched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapjournal import StoredMap, read_map
from tatvpr_edge.spec.placemap import Band, MapInfo, Rows
from tatvpr_edge.spec.scores import (
    best,
    binary_rows,
    binary_scores,
    check_descriptors,
    int8_rows,
    int8_scores,
    nearest_band,
)


@dataclass(frozen=True)
class Candidate:
    """One place of an answer.

    Attributes:
        place: its number in the map, from 0.
        score: cosine (int8 maps) or ``1 - 2 * hamming / dim`` (binary maps), in [-1, 1].
        tag: the text stored with it, as a rule the name of its frame.
        pose: (x, y, z, qx, qy, qz, qw) in metres, in the map's pose frame; None where unknown.
            Single unknown numbers are NaN.
    """

    place: int
    score: float
    tag: str
    pose: tuple[float, float, float, float, float, float, float] | None


@dataclass(frozen=True)
class Found:
    """Answer of a search: candidates, best first; the band that was searched."""

    candidates: tuple[Candidate, ...]
    band: Band

    @property
    def accepted(self) -> bool | None:
        """Whether the best score reaches the band's threshold; None without a threshold."""
        if self.band.threshold is None:
            return None
        return self.candidates[0].score >= self.band.threshold


class PlaceMap:
    """A map as it stands now; places added later are seen after opening it again.

    Raises:
        MapError: by name of the fault: truncated, altered, newer, of another model.
    """

    def __init__(self, path: str | Path, model_hash: str | None = None) -> None:
        self.path = Path(path)
        self._stored: StoredMap = read_map(path)
        if model_hash is not None and self.info.model_hash != model_hash:
            raise MapError(
                f"map {path} was made with another model ({self.info.model_hash[:12]}) than the "
                f"artifact's ({model_hash[:12]}): make the map again with this artifact"
            )

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

    def tag(self, place: int) -> str:
        """The text stored with ``place``."""
        base = self._stored.base
        return base.tag(place) if place < len(base) else self._stored.added.tags[place - len(base)]

    def pose(self, place: int) -> NDArray[np.float64]:
        """Pose float64 [7] of ``place``, NaN where unknown."""
        base = self._stored.base
        if place < len(base):
            return base.poses[place]
        pose: NDArray[np.float64] = self._stored.added.poses[place - len(base)]
        return pose

    def search(
        self, descriptor: NDArray[np.float32], k: float, tokens: float = 1.0, count: int = 1
    ) -> Found:
        """The ``count`` places most like ``descriptor`` float32 [D], best first.

        Ties go to the lower place. The band that costs a query at (k, tokens) least is searched
        (``spec.scores.nearest_band``): descriptors made at very different k match worse.

        Raises:
            MapError: the map is empty, or the descriptor has another size, or is zero or not
                finite.
        """
        if not len(self):
            raise MapError(f"map {self.path} holds no places yet: add frames with 'map add'")
        query = check_descriptors(np.asarray(descriptor)[None], self.info.dim)
        bands = self.info.bands
        index = nearest_band([(band.k, band.tokens) for band in bands], k, tokens)
        parts = [self._stored.base.rows[index], self._stored.added.rows[index]]
        scores = np.concatenate([self._scores(query, rows) for rows in parts])
        places = best(scores, count)
        return Found(
            tuple(self._candidate(int(place), scores[place]) for place in places), bands[index]
        )

    def _scores(self, query: NDArray[np.float32], rows: Rows) -> NDArray[np.float32]:
        if rows.norms is None:
            table = rows.data.view(np.uint8)
            return binary_scores(binary_rows(query)[0], table, self.info.dim)
        quantised, norm = int8_rows(query)
        return int8_scores(quantised[0], norm[0], rows.data.view(np.int8), rows.norms)

    def _candidate(self, place: int, score: np.float32) -> Candidate:
        x, y, z, qx, qy, qz, qw = (float(value) for value in self.pose(place))
        pose = None if np.isnan(self.pose(place)).all() else (x, y, z, qx, qy, qz, qw)
        return Candidate(place, float(score), self.tag(place), pose)
