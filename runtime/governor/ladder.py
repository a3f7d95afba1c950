"""The levels between which the governor chooses, from an artifact's measured profile.

In: ``manifest.json``'s ``profile``: ``{"device": {...}, "points": [{"k", "tokens", "latency_ms":
{"p50", "p95", "p99"}, "energy_mj": number or null, "macs": int, "recall"?: number}, ...]}``.
Out: levels in ascending cost, along which neither k nor tokens ever falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.spec.errors import ArtifactError, UsageError

__all__ = ["DEFAULT_KS", "MAX_LEVELS", "Level", "ladder_from_profile", "nearest_level"]

MAX_LEVELS = 16
DEFAULT_KS = (0.2, 0.4, 0.6, 1.0)


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of the model; what was not measured is NaN."""

    k: float
    tokens: float
    p50_ms: float = math.nan
    p95_ms: float = math.nan
    energy_mj: float = math.nan
    recall: float = math.nan

    def text(self) -> str:
        """The setting, for people."""
        return f"k={self.k:g}" if self.tokens == 1.0 else f"k={self.k:g}, tokens={self.tokens:g}"


def ladder_from_profile(
    profile: Mapping[str, Any] | None, k_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[list[Level], bool]:
    """Levels in ascending cost, and whether they were measured.

    Runs that were not valid (throttled, disturbed) are left out where the others span the range.
    Without a profile, the default levels (k = .2, .4, .6, 1) with nothing known about them. Points
    outside ``k_range``, for which the artifact was not checked, are left out in both cases. Points
    that a costlier or equal setting dominates are left out; so are points off the chain (of two
    that differ in both directions of k and tokens, the one with the better recall stays, or the
    one with more tokens where recall was not measured).

    Raises:
        ArtifactError: the profile does not have the form above.
    """
    points = [] if profile is None else profile.get("points", [])
    if not isinstance(points, Sequence) or isinstance(points, (str, bytes)):
        raise ArtifactError("the artifact's profile has no list of points: profile it again")
    low, high = k_range
    known = [(_level(point), _is_valid(point)) for point in points]
    known = [(level, valid) for level, valid in known if low - 1e-6 <= level.k <= high + 1e-6]
    measured = [level for level, valid in known if valid]
    if measured and not _spans(measured, [level for level, _ in known]):
        # Without its ends the ladder could not go as low, or as high, as the user profiled:
        # disturbed runs stay, with nothing known about them.
        measured += [Level(level.k, level.tokens) for level, valid in known if not valid]
    if not measured:
        inside = [k for k in DEFAULT_KS if low <= k <= high] or [high]
        return [Level(k, 1.0) for k in inside], False
    unique = {(level.k, level.tokens): level for level in measured}
    chain = _chain(sorted(unique.values(), key=_quality, reverse=True))
    return _thin(chain), True


def nearest_level(levels: Sequence[Level], k: float, tokens: float = 1.0) -> int:
    """The level nearest to a setting that the user names.

    Raises:
        UsageError: k or tokens outside (0, 1].
    """
    for name, value in (("k", k), ("tokens", tokens)):
        if not isinstance(value, (int, float)) or not 0.0 < value <= 1.0:
            raise UsageError(f"{name} of {value!r}: give a fraction above 0 and at most 1")
    return min(
        range(len(levels)), key=lambda i: (abs(levels[i].k - k) + abs(levels[i].tokens - tokens), i)
    )


def _spans(some: Sequence[Level], every: Sequence[Level]) -> bool:
    """Whether the cheapest and the best of all settings are among some of them."""
    ends = {(min(x.k for x in every), min(x.tokens for x in every))}
    ends.add((max(x.k for x in every), max(x.tokens for x in every)))
    have = {(level.k, level.tokens) for level in some}
    profiled = {(level.k, level.tokens) for level in every}
    return (ends & profiled) <= have


def _is_valid(point: object) -> bool:
    """Points of throttled runs are kept in the profile for people, not for control."""
    return not (isinstance(point, Mapping) and point.get("valid") is False)


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
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"the artifact's profile has a malformed point {point!r}: profile it again"
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


def _quality(level: Level) -> tuple[float, float, float]:
    recall = 0.0 if math.isnan(level.recall) else level.recall
    return (recall, level.tokens, level.k)


def _cost(level: Level) -> float:
    return level.p50_ms if math.isnan(level.energy_mj) else level.energy_mj


def _chain(best_first: Sequence[Level]) -> list[Level]:
    """Greedy from the best: each next level costs less and has neither more k nor more tokens."""
    chain: list[Level] = []
    for level in best_first:
        if not chain:
            chain.append(level)
            continue
        last = chain[-1]
        cheaper = not _cost(level) >= _cost(last)  # an unknown cost is let through
        if level.k <= last.k and level.tokens <= last.tokens and cheaper:
            chain.append(level)
    return chain[::-1]


def _thin(chain: list[Level]) -> list[Level]:
    """At most MAX_LEVELS, evenly taken, both ends kept."""
    if len(chain) <= MAX_LEVELS:
        return chain
    step = (len(chain) - 1) / (MAX_LEVELS - 1)
    return [chain[round(i * step)] for i in range(MAX_LEVELS)]
