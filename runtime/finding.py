"""What a map finds at one moment of it: for one frame, and for a path that a frame belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.found import Candidate, Found, known
from tatvpr_edge.runtime.growing import Moment
from tatvpr_edge.runtime.motion import Moved
from tatvpr_edge.runtime.search import Asked, Hit, NoDescriptionError, Table, around, told_pose
from tatvpr_edge.runtime.tracking import Tracked
from tatvpr_edge.spec.scores import nearest_band


def find(
    now: Moment, table: Table, descriptor: NDArray[np.float32], asked: Asked, scores: bool
) -> Found:
    """As ``PlaceMap.search``, of what ``now`` and its ``table`` hold."""
    # What a margin is made of is then looked up, not searched for once more; of a weighed map
    # it is made of the best by distance.
    looked_up = table.judges_margins and now.base.info.kind != "weighed"
    every = np.empty(table.size, np.float32) if scores or looked_up else None
    band, hits = table.search(descriptor, asked, every)
    every = every if scores else None
    if not hits:
        return Found((), now.base.info.bands[band], False, scores=every)
    best = hits[0]
    return Found(
        candidates=tuple([_candidate(now, hit) for hit in hits]),
        band=now.base.info.bands[band],
        accepted=None if best.accepted < 0 else bool(best.accepted),
        margin=known(best.margin),
        confidence=known(best.confidence),
        scores=every,
        mark=now.mark(best.place),
    )


def find_on_path(
    now: Moment,
    table: Table,
    follow: Callable[..., Tracked],
    descriptor: NDArray[np.float32],
    asked: Asked,
    shown: bool,
    moved: Moved | None,
) -> Found:
    """As ``PlaceMap.follow``, of what ``now`` and its ``table`` hold."""
    bands = now.base.info.bands
    every = np.empty(table.size, np.float32)
    circle = around(asked.near, asked.radius_m)
    band, hits = 0, list[Hit]()
    try:
        # Evidence is gathered everywhere, wherever the answer is looked for.
        band, hits = table.search(descriptor, asked, every if circle is None else None)
        if circle is not None:
            everywhere = replace(asked, count=1, near=None, radius_m=None)
            table.search(descriptor, everywhere, every)
    except NoDescriptionError:
        every.fill(-np.inf)  # as if every place were left out
    if not hits:
        band = nearest_band([(one.k, one.tokens) for one in bands], asked.k, asked.tokens)
    metres, turned_rad = (None, None) if moved is None else moved
    seen = every if shown else None
    motion = (metres, circle, turned_rad)
    setting = (asked.k, asked.tokens)
    compared = np.ascontiguousarray(descriptor, np.float32)
    tracked = follow(now.numbering, table, bands, band, seen, *motion, *setting, compared)
    answer = []
    place, end, masked = tracked.place, asked.end, asked.without
    # After a dark frame, or one for which every place was left out, a path has its last answer.
    out = (end is not None and place >= end) or (masked is not None and masked[place])
    if place >= 0 and not out:
        score = max(float(every[place]), -1.0)
        answer.append(Candidate(place, score, now.tag(place), tracked.pose))
        others = [hit for hit in hits if hit.place != place][: asked.count - 1]
        answer += [_candidate(now, hit) for hit in others]
    return Found(
        candidates=tuple(answer),
        band=bands[band],
        accepted=tracked.accepted if answer else False,
        margin=known(tracked.margin),
        confidence=known(tracked.confidence),
        tracked=tracked,
        mark=now.mark(place) if answer else None,
    )


def _candidate(now: Moment, hit: Hit) -> Candidate:
    return Candidate(hit.place, hit.score, now.tag(hit.place), told_pose(hit.pose[:]))
