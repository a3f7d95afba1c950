"""Which places of a map can go: those that a neighbour along their drive says as well.

A place is as good as gone from a map's answers only where nothing like it is left. Places are
dropped one by one, always one of the two neighbours (along a drive) that are most alike of all that
are left; never one that was confirmed. NumPy only: it runs on the board.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import MapInfo, Places
from tatvpr_edge.spec.scores import pair_scores, score_of_cosine

F32 = NDArray[np.float32]
#: Places that are more alike than this (a cosine) are redundant.
_REDUNDANT_COSINE = 0.9
#: The same where neighbours keep parts of each other: what 0.9, and 0.84 and 0.8 to the next but
#: one and two, becomes by that (``mapping.neighbours``).
_REDUNDANT_LEANING = 0.96


@dataclass(frozen=True)
class Pruned:
    """What a map loses.

    Attributes:
        keep: int64, places that stay, in their order.
        dropped: how many go.
        covered: float32 [dropped]: how alike each is to the more alike of its neighbours that
            stay (cosine, or its likeness for binary maps).
    """

    keep: NDArray[np.int64]
    dropped: int
    covered: F32

    @property
    def least_covered(self) -> float | None:
        """The smallest of ``covered``; None where nothing goes."""
        return float(self.covered.min()) if len(self.covered) else None


def redundant_score(info: MapInfo) -> float:
    """From which score on places of a map say the same."""
    return score_of_cosine(info.kind, _REDUNDANT_LEANING if info.neighbours else _REDUNDANT_COSINE)


def neighbour_scores(
    info: MapInfo, places: Places, a: NDArray[np.int64], b: NDArray[np.int64]
) -> F32:
    """How alike places ``a`` [n] and ``b`` [n] are, as the first band stores them."""
    rows = places.rows[0]
    return pair_scores(rows.data, rows.norms, info.dim, a, b)


def along_drives(places: Places) -> NDArray[np.int64]:
    """Places in the order in which they were passed, drive after drive."""
    moments = places.moments
    return np.lexsort((np.arange(len(places)), moments["order"], moments["drive"]))


def prune(info: MapInfo, places: Places, most: int) -> Pruned:
    """What stays when ``places`` shall be ``most``.

    Raises:
        MapError: more than ``most`` places were confirmed.
    """
    count = len(places)
    protected = places.moments["confirmed"] > 0
    least = max(int(protected.sum()), 1)
    if most < least:
        raise MapError(
            f"{int(protected.sum())} of {count} places were confirmed, and those stay: keep "
            f"{least} or more, not {most}"
        )
    order = along_drives(places)
    before, after = _links(places, order)
    alive = np.ones(count, bool)
    _drop(
        max(count - most, 0),
        lambda a, b: neighbour_scores(info, places, a, b),
        (before, after),
        protected,
        alive,
    )
    keep = np.flatnonzero(alive)
    gone = np.flatnonzero(~alive)
    return Pruned(keep, len(gone), _covered(info, places, order, alive, gone))


def _links(places: Places, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place before and after each along its drive; -1: none."""
    before = np.full(len(places), -1, np.int64)
    after = np.full(len(places), -1, np.int64)
    drives = places.moments["drive"][order]
    same = np.flatnonzero(drives[1:] == drives[:-1])
    before[order[same + 1]] = order[same]
    after[order[same]] = order[same + 1]
    return before, after


def _drop(
    count: int,
    score: Callable[[NDArray[np.int64], NDArray[np.int64]], F32],
    links: tuple[NDArray[np.int64], NDArray[np.int64]],
    protected: NDArray[np.bool_],
    alive: NDArray[np.bool_],
) -> None:
    """Mark ``count`` places as gone in ``alive``."""
    before, after = links
    left = np.flatnonzero(after >= 0)
    scores = score(left, after[left])
    to_next = np.full(len(alive), -np.inf, np.float32)
    to_next[left] = scores
    heap = [(-float(s), int(a), int(after[a])) for s, a in zip(scores, left, strict=True)]
    heapq.heapify(heap)
    while count and heap:
        _, a, b = heapq.heappop(heap)
        if not alive[a] or after[a] != b or (protected[a] and protected[b]):
            continue
        outer_a = to_next[before[a]] if before[a] >= 0 else -np.inf
        victim = a if protected[b] or (not protected[a] and outer_a > to_next[b]) else b
        alive[victim] = False
        count -= 1
        p, n = int(before[victim]), int(after[victim])
        if p >= 0:
            after[p] = n
        if n >= 0:
            before[n] = p
        if p >= 0 and n >= 0:
            to_next[p] = score(np.array([p]), np.array([n]))[0]
            heapq.heappush(heap, (-float(to_next[p]), p, n))
    if count:  # drives of one place each, or confirmed ones between: the oldest go
        rest = np.flatnonzero(alive & ~protected)[:count]
        alive[rest] = False


def _covered(
    info: MapInfo,
    places: Places,
    order: NDArray[np.int64],
    alive: NDArray[np.bool_],
    gone: NDArray[np.int64],
) -> F32:
    """How alike each place that goes is to the kept one before or after it along its drive."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept_ranks = np.flatnonzero(alive[order])
    best = np.full(len(gone), -1, np.float32)
    drive = places.moments["drive"]
    at = np.searchsorted(kept_ranks, rank[gone])
    for neighbour in (at - 1, at):
        inside = (neighbour >= 0) & (neighbour < len(kept_ranks))
        other = order[kept_ranks[np.clip(neighbour, 0, len(kept_ranks) - 1)]]
        same = inside & (drive[other] == drive[gone])
        likeness = neighbour_scores(info, places, gone, other)
        best = np.where(same, np.maximum(best, likeness), best)
    return best.astype(np.float32)
