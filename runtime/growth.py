"""``Localizer.add``: what a robot's map takes up while the robot drives, and what it lets go.

In: a frame or its descriptors, and terms (what counts as new, how large the map may become). Out:
an :class:`Addition`. The map itself is :class:`tatvpr_edge.runtime.placemap.PlaceMap`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.arguments import added_at
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.mapjournal import append_bytes
from tatvpr_edge.runtime.mapwriter import described, full_pose, given_frame
from tatvpr_edge.runtime.match import Match
from tatvpr_edge.runtime.structure import without_structure
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.maptypes import make_places
from tatvpr_edge.spec.values import above, between, instance, wrong

if TYPE_CHECKING:
    from tatvpr_edge.runtime.localizer import Localizer
    from tatvpr_edge.runtime.placemap import PlaceMap

F32 = NDArray[np.float32]
#: A map that reached its limit is thinned out to this share of it: pruning rewrites the file.
PRUNED_TO = 0.9
#: Where confirmed places leave less of it than this share, or than two places, it takes no more:
#: every frame would rewrite the file, and what it brought would go with the next.
LEAST_FREED = 0.02


@dataclass(frozen=True)
class Addition:
    """What became of a frame that was offered to the map.

    Attributes:
        place: its number in the map; None where it was not added.
        reason: why not, in one line; otherwise None.
        score: of the place most like it before; None where none was asked for.
        dropped: places that went to make room for it (numbers have changed then).
        least_covered: how alike each of those is, at least, to a place that stayed; None where
            none went.
    """

    place: int | None
    reason: str | None = None
    score: float | None = None
    dropped: int = 0
    least_covered: float | None = None


def offer(
    localizer: Localizer,
    place_map: PlaceMap,
    frame: NDArray[np.uint8] | CameraFrame | F32 | Sequence[F32],
    pose: Sequence[float] | NDArray[np.float64] | None,
    tag: str,
    *,
    match: Match | None,
    novelty: float | None,
    novelty_m: float | None,
    time_s: float | None,
    bgr: bool,
    max_places: int | None,
    max_bytes: int | None,
) -> Addition:
    """As :meth:`Localizer.add`, whose text says what each argument is."""
    check_terms(novelty, novelty_m, max_places, max_bytes)
    whole_pose, seen_s = full_pose(pose), added_at(time_s)
    if match is not None:
        instance(match, Match, "match", "what query() answered for this frame")
    given = given_frame(frame, bgr)
    if isinstance(given, CameraFrame):
        nothing = without_structure(place_map.engine, given)
        if nothing is not None:
            return Addition(None, nothing)
    info, score = place_map.info, None
    reuse = (
        match is not None
        and match.descriptor is not None
        and [(np.float32(b.k), np.float32(b.tokens)) for b in info.bands]
        == [(np.float32(match.k), np.float32(match.tokens))]
    )
    known: list[F32] | None = None
    if reuse and match is not None and match.descriptor is not None:
        known = [match.descriptor]
    descriptors = known or described(localizer, info, given)
    # What cannot be a place is told before others make room for it.
    make_places(info, [row[None] for row in descriptors], whole_pose[None], [tag], times=[seen_s])
    if any(term is not None for term in (novelty, max_places, max_bytes)):
        place_map.catch_up()  # others may add to the map as well, prune it, or confirm more
    if novelty is not None and len(place_map):
        k, tokens = info.bands[0].k, info.bands[0].tokens
        near: list[float] | None = None
        if novelty_m is not None:
            near = novelty_position(whole_pose)
        found = place_map.search(descriptors[0], k, tokens, near=near, radius=novelty_m)
        if found.candidates:
            best = found.candidates[0]
            score = best.score
            if score >= novelty:
                return Addition(None, f"place {best.place} looks like it ({score:.3f})", score)
    pruned = None
    limits = _limits(place_map, tag, max_places, max_bytes)
    if limits is not None:
        to, room = limits
        most = max(to, place_map.confirmed, 1)
        # What was confirmed stays, so that a map may be full for good; a robot drives on then.
        if most > to and room + 1 - most < max(2, room * LEAST_FREED):
            reason = (
                "the map is full, and what was confirmed stays: give it more room, or begin another"
            )
            return Addition(None, reason, score)
        pruned = place_map.prune(most)
    place = place_map.add(descriptors, whole_pose, tag, seen_s)
    if pruned is None:
        return Addition(place, None, score)
    return Addition(place, None, score, pruned.dropped, pruned.least_covered)


def novelty_position(pose: NDArray[np.float64]) -> list[float]:
    """Where ``novelty_m`` looks: (x, y), or (x, y, z) where the pose float64 [7] says so.

    Raises:
        UsageError: the pose has no position.
    """
    position = pose[:3]
    if np.isnan(position[:2]).any():
        raise UsageError("novelty_m needs a position: give pose=(x, y) with it")
    known: list[float] = position[: 2 if np.isnan(position[2]) else 3].tolist()
    return known


def _limits(
    place_map: PlaceMap, tag: str, max_places: int | None, max_bytes: int | None
) -> tuple[int, int] | None:
    """To how many places the map is pruned before one more is added, and up to how many leave room
    for it; None where there is room."""
    count, size = len(place_map), place_map.file_bytes
    pruned_to, room = [], []
    if max_places is not None and count + 1 > max_places:
        room.append(int(max_places) - 1)
        pruned_to.append(min(int(max_places * PRUNED_TO), room[0]))
    one_more = append_bytes(place_map.info, tag)
    if max_bytes is not None and size + one_more > max_bytes:
        room.append(int(count * (max_bytes - one_more) / size))
        pruned_to.append(min(int(count * PRUNED_TO * max_bytes / size), room[-1]))
    return (min(pruned_to), min(room)) if room else None


def check_terms(novelty: Any, novelty_m: Any, max_places: Any, max_bytes: Any) -> dict[str, float]:
    """The terms of ``Localizer.add`` that are given; None stands for none.

    Raises:
        UsageError: one is out of range.
    """
    given = {}
    if novelty is not None:
        given["novelty"] = between(novelty, -1, 1, "novelty", "a score from -1 to 1")
    if novelty_m is not None:
        meaning = "metres above 0, beside novelty"
        given["novelty_m"] = above(novelty_m, 0, "novelty_m", meaning)
        if novelty is None:
            raise wrong(novelty_m, "novelty_m", meaning)
    if max_places is not None:
        meaning = "a number of places, at least 2"
        given["max_places"] = between(max_places, 2, math.inf, "max_places", meaning)
    if max_bytes is not None:
        meaning = "at least 65536 bytes"
        given["max_bytes"] = between(max_bytes, 1 << 16, math.inf, "max_bytes", meaning)
    return given
