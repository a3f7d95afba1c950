"""The levels between which the governor chooses, from an artifact's measured profile.

In: ``manifest.json``'s ``profile``: ``{"device": {...}, "points": [{"k", "tokens", "latency_ms":
{"p50", "p95", "p99"}, "energy_mj": number or null, "macs": int, "recall"?: number}, ...]}``.
Out: the frontier of what was measured, in ascending cost (`GovernorCore.frontier` says by which
rules), and a line about a dial that does not pay on this board.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.runtime.governor.binding import GovernorCore
from tatvpr_edge.runtime.governor.budget import Kind
from tatvpr_edge.runtime.governor.level import Level
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.limits import default_ks
from tatvpr_edge.spec.values import shown


@dataclass(frozen=True)
class Ladder:
    """Levels in ascending cost; whether they were measured; what to say about the dials."""

    levels: tuple[Level, ...]
    measured: bool
    note: str = ""


def ladder_from_profile(
    core: GovernorCore,
    profile: Mapping[str, Any] | None,
    k_range: tuple[float, float] = (0.0, 1.0),
    kind: Kind = Kind.NONE,
    busy: bool = False,
    pays_below: float = 1.0,
) -> Ladder:
    """The levels of a profile for a kind of budget.

    Runs that were not valid (throttled, disturbed) are left out where the others span the range;
    with ``busy``, those that merely shared the processor with the robot's other programs count.
    Without a profile, the default levels (k = .2, .4, .6, 1) with nothing known about them but that
    those from ``pays_below`` on cost no less than the largest, which alone stays of them. Points
    outside ``k_range``, for which the artifact was not checked, are left out in both cases.

    Raises:
        ArtifactError: the profile does not have the form above.
    """
    points = [] if profile is None else profile.get("points", [])
    if not isinstance(points, Sequence) or isinstance(points, (str, bytes)):
        raise ArtifactError("the artifact's profile has no list of points: profile it again")
    low, high = k_range
    known = [(_level(point), _counts(point, busy)) for point in points]
    known = [(level, valid) for level, valid in known if low - 1e-6 <= level.k <= high + 1e-6]
    measured = [level for level, valid in known if valid]
    if measured and not _spans(measured, [level for level, _ in known]):
        # Without its ends the ladder could not go as low, or as high, as the user profiled:
        # disturbed runs stay, with nothing known about them.
        measured += [Level(level.k, level.tokens) for level, valid in known if not valid]
    if not measured:
        inside = default_ks(k_range)
        worth = [k for k in inside if k < pays_below or k == inside[-1]]
        why = _why_not_measured(points, len(known), k_range)
        return Ladder(tuple(Level(k, 1.0) for k in worth), False, why)
    unique = list({(level.k, level.tokens): level for level in measured}.values())
    levels = core.frontier(unique, kind)
    return Ladder(tuple(levels), True, _idle_dials(unique, levels))


def _why_not_measured(points: Sequence[Any], inside: int, k_range: tuple[float, float]) -> str:
    """Why nothing is known about any level, and what to do."""
    if not points:
        return "the artifact carries no measured profile (run 'tatvpr-edge profile')"
    if not inside:
        low, high = k_range
        return f"the artifact's profile has no k of {low:g} to {high:g} (run 'tatvpr-edge profile')"
    busy = any(point.get("busy") is True for point in points)
    beside = ", or take what was measured beside other programs: busy_profile=True" if busy else ""
    return f"no point of the artifact's profile is valid (profile a cool, quiet board{beside})"


def _idle_dials(points: Sequence[Level], levels: Sequence[Level]) -> str:
    """Which dial was measured and does not pay on this board; empty where both do or may."""
    idle = []
    for name in ("k", "tokens"):
        ways = {getattr(point, name) for point in points}
        if len(ways) > 1 and len({getattr(level, name) for level in levels}) == 1:
            idle.append(f"{name} stays at {getattr(levels[0], name):g}")
    if not idle:
        return ""
    moved = [n for n in ("k", "tokens") if len({getattr(level, n) for level in levels}) > 1]
    if moved:
        return f"{' and '.join(idle)}, because less does not pay on this board: {moved[0]} moves"
    more = "" if len({point.tokens for point in points}) > 1 else " (profile with --tokens 1,.5)"
    return f"{' and '.join(idle)}, because less does not pay on this board{more}"


def _spans(some: Sequence[Level], every: Sequence[Level]) -> bool:
    """Whether the cheapest and the best of all settings are among some of them."""
    ends = {(min(x.k for x in every), min(x.tokens for x in every))}
    ends.add((max(x.k for x in every), max(x.tokens for x in every)))
    have = {(level.k, level.tokens) for level in some}
    profiled = {(level.k, level.tokens) for level in every}
    return (ends & profiled) <= have


def _counts(point: object, busy: bool) -> bool:
    """Points of throttled runs are kept in the profile for people, not for control."""
    if not isinstance(point, Mapping) or point.get("valid") is not False:
        return True
    return busy and point.get("busy") is True


def _level(point: Any) -> Level:
    try:
        latency = point.get("latency_ms") or {}
        level = Level(
            k=float(point["k"]),
            tokens=float(point.get("tokens", 1.0)),
            p50_ms=_positive(latency.get("p50")),
            p95_ms=_positive(latency.get("p95", latency.get("p50"))),
            energy_mj=_positive(point.get("energy_mj")),
            recall=_positive(point.get("recall")),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise ArtifactError(
            f"the artifact's profile has a malformed point {shown(point)}: profile it again"
        ) from None
    if not (0.0 < level.k <= 1.0 and 0.0 < level.tokens <= 1.0):
        raise ArtifactError(
            f"the artifact's profile has a point at k={level.k:g}, tokens={level.tokens:g}: "
            "both lie above 0 and at most at 1"
        )
    return level


def _positive(value: object) -> float:
    """The number, or NaN for null, zero, negative and not finite: none is a measured cost."""
    if value is None:
        return math.nan
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) and number > 0 else math.nan
