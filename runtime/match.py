"""``Match``: what a query answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.found import Candidate, Found
from tatvpr_edge.runtime.search import Pose
from tatvpr_edge.runtime.verdict import reason_against
from tatvpr_edge.spec.values import whole


@dataclass(frozen=True)
class Match:
    """Where a frame was taken.

    Attributes:
        place, score, tag, pose: of the best candidate; see :class:`Candidate`.
        accepted: whether it is taken for right; None where the map is not calibrated.
        k, tokens: what the descriptor was made with.
        latency_ms: from the call to this answer.
        candidates: as many as were asked for, best first.
        margin: its score less the best score elsewhere; None where the map does not ask for it.
        confidence: how probable it is that the place is right, 0..1; None likewise.
        reason: why ``accepted`` is False, in one line; otherwise None.
        state: with a sequence, "found" (accepted, after being lost), "moved" or "here" (going on
            from an accepted answer, at another place or the same), "lost"; None where the map does
            not judge sequences, and for single frames. ``place``, ``accepted``, ``margin`` and
            ``confidence`` are then the sequence's, ``score`` is this frame's of that place.
        frames: how many frames the answer rests on.
        descriptor: float32 [D] of the frame, for :meth:`Localizer.add`; None from a service.
        mark: what the place is known by, whatever its number becomes, for
            :meth:`Localizer.confirm`; None where nothing was found.
    """

    place: int
    score: float
    tag: str
    pose: Pose | None
    accepted: bool | None
    k: float
    tokens: float
    latency_ms: float
    candidates: tuple[Candidate, ...]
    margin: float | None = None
    confidence: float | None = None
    reason: str | None = None
    state: str | None = None
    frames: int = 1
    descriptor: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    mark: str | None = field(default=None, repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        """For JSON: everything but the descriptor and the mark."""
        said = asdict(self)
        del said["descriptor"], said["mark"]
        return said


def match_of(
    found: Found,
    nothing: str | None,
    descriptor: NDArray[np.float32],
    k: float,
    tokens: float,
    latency_ms: float,
) -> Match:
    """What a search found for a frame.

    Args:
        nothing: why the frame shows nothing, and is not accepted; None: it may be a place.
    """
    best = found.candidates[0] if found.candidates else Candidate(-1, -1.0, "", None)
    return Match(
        place=best.place,
        score=best.score,
        tag=best.tag,
        pose=best.pose,
        accepted=found.accepted if nothing is None else False,
        k=k,
        tokens=tokens,
        latency_ms=latency_ms,
        candidates=found.candidates,
        margin=found.margin,
        confidence=found.confidence,
        reason=reason_against(found, nothing),
        state=None if found.tracked is None else found.tracked.state,
        frames=1 if found.tracked is None else found.tracked.frames,
        descriptor=descriptor,
        mark=found.mark,
    )


def place_of(match: Any) -> int:
    """The place that a match, or a place's number, names.

    Raises:
        UsageError: it is neither.
    """
    place = match.place if isinstance(match, Match) else match
    return whole(place, -1, "match", "what query() answered, or the number of a place")
