"""``Localizer.add``: what a robot's map takes up while the robot drives, and what it lets go.

In: a frame or its descriptors, and terms (what counts as new, how large the map may become). Out:
an :class:`Addition`. The map itself is :class:`tatvpr_edge.runtime.placemap.PlaceMap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.mapwriter import described, full_pose
from tatvpr_edge.spec.errors import UsageError

if TYPE_CHECKING:
    from tatvpr_edge.runtime.localizer import Localizer, Match
    from tatvpr_edge.runtime.placemap import PlaceMap

F32 = NDArray[np.float32]
#: A map that reached its limit is thinned out to this share of it: pruning rewrites the file.
PRUNED_TO = 0.9


@dataclass(frozen=True)
class Addition:
    """What became of a frame that was offered to the map.

    Attributes:
        place: its number in the map; None where it was not added.
        reason: why not, in one line; otherwise None.
        score: of the place most like it before; None where none was asked for.
        dropped: places that went to keep the map within its limit (numbers have changed then).
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
    time_s: float | None,
    bgr: bool,
    max_places: int | None,
    max_bytes: int | None,
) -> Addition:
    """As :meth:`Localizer.add`, whose text says what each argument is."""
    _check_terms(novelty, max_places, max_bytes)
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
    descriptors = known or described(localizer, info, frame, bgr)
    if novelty is not None and len(place_map):
        best = place_map.search(descriptors[0], info.bands[0].k, info.bands[0].tokens)
        score = best.candidates[0].score
        if score >= novelty:
            said = f"place {best.candidates[0].place} looks like it ({score:.3f})"
            return Addition(None, said, score)
    place = place_map.add(descriptors, full_pose(pose), tag, time_s)
    most = _most(place_map, max_places, max_bytes)
    if most is None:
        return Addition(place, None, score)
    pruned = place_map.prune(most)
    kept = np.flatnonzero(pruned.keep == place)
    number = int(kept[0]) if len(kept) else None
    return Addition(
        number,
        None if number is not None else "it was the most redundant when the map was pruned",
        score,
        pruned.dropped,
        pruned.least_covered,
    )


def _most(place_map: PlaceMap, max_places: int | None, max_bytes: int | None) -> int | None:
    """How many places shall stay; None while the map is within its limits."""
    count, size = len(place_map), place_map.file_bytes
    limits = []
    if max_places is not None and count > max_places:
        limits.append(int(max_places * PRUNED_TO))
    if max_bytes is not None and size > max_bytes:
        limits.append(int(count * PRUNED_TO * max_bytes / size))
    return max(min(limits), 1) if limits else None


def _check_terms(novelty: Any, max_places: Any, max_bytes: Any) -> None:
    if novelty is not None and not -1 <= novelty <= 1:
        raise UsageError(f"novelty is {novelty!r}: a score from -1 to 1")
    if max_places is not None and (isinstance(max_places, bool) or not max_places >= 2):
        raise UsageError(f"max_places is {max_places!r}: at least 2")
    if max_bytes is not None and not max_bytes >= 1 << 16:
        raise UsageError(f"max_bytes is {max_bytes!r}: at least 65536 bytes")
