"""Energy of a run from power samples, and of one query with the idle board subtracted.

In: ``TimedPower`` points on the clock of the run. Out: millijoules, or the reason why not: a gap
in the samples is never bridged by a guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tatvpr_edge.runtime.telemetry import TimedPower

_MIN_SAMPLES = 5


@dataclass(frozen=True)
class Energy:
    """What one query costs. ``net_mj`` is None where ``note`` says why."""

    net_mj: float | None
    gross_mj: float | None
    """With the idle board, other programs and all."""
    mean_mw: float | None
    note: str = ""


def integrate_mj(
    points: Sequence[TimedPower], start_s: float, end_s: float, max_gap_s: float
) -> float | str:
    """Energy between two times by the trapezoid rule (mW times s is mJ), or why it is not known.

    At both ends power is interpolated, or taken as the nearest sample's within ``max_gap_s``.
    """
    if not end_s > start_s:
        return "the run has no duration"
    known: list[tuple[float, float]] = [
        (point.time_s, point.power_mw) for point in points if point.power_mw is not None
    ]
    inside = [point for point in known if start_s <= point[0] <= end_s]
    if len(inside) < _MIN_SAMPLES:
        return f"{len(inside)} power samples in {end_s - start_s:.1f} s: too few to integrate"
    before = next((point for point in reversed(known) if point[0] < start_s), None)
    after = next((point for point in known if point[0] > end_s), None)
    curve = [_at(before, inside[0], start_s, max_gap_s), *inside]
    curve.append(_at(inside[-1], after, end_s, max_gap_s))
    total = 0.0
    for (t0, p0), (t1, p1) in itertools.pairwise(curve):
        if t1 - t0 > max_gap_s:
            return f"no power reading for {t1 - t0:.1f} s within the run"
        total += 0.5 * (p0 + p1) * (t1 - t0)
    return total


def news_of(points: Sequence[TimedPower]) -> list[TimedPower]:
    """Those points at which a sensor that repeats itself showed another figure than before."""
    known = [point for point in points if point.power_mw is not None]
    return [
        point
        for last, point in zip([None, *known], known, strict=False)
        if last is None or point.power_mw != last.power_mw
    ]


def _at(
    left: tuple[float, float] | None,
    right: tuple[float, float] | None,
    time_s: float,
    max_gap_s: float,
) -> tuple[float, float]:
    """Power at an end of the run, between its neighbours or from the one that there is."""
    if left is None or right is None:
        only = left or right
        assert only is not None
        return (time_s, only[1])
    if right[0] - left[0] > max_gap_s or right[0] <= left[0]:
        nearest = min(left, right, key=lambda point: abs(point[0] - time_s))
        return (time_s, nearest[1])
    share = (time_s - left[0]) / (right[0] - left[0])
    return (time_s, left[1] + share * (right[1] - left[1]))


def energy_of_run(
    points: Sequence[TimedPower],
    start_s: float,
    end_s: float,
    queries: int,
    idle_mw: float | None,
    max_gap_s: float,
) -> Energy:
    """Energy per query of a run: all of it, and what is left when the idle power is subtracted."""
    gross = integrate_mj(points, start_s, end_s, max_gap_s)
    if isinstance(gross, str):
        return Energy(None, None, None, gross)
    mean_mw = gross / (end_s - start_s)
    if queries < 1:
        return Energy(None, None, mean_mw, "no query was made")
    if idle_mw is None:
        return Energy(None, gross / queries, mean_mw, "the idle power is not known")
    net = gross - idle_mw * (end_s - start_s)
    if net <= 0.02 * gross:
        note = f"{mean_mw:.0f} mW do not stand out from {idle_mw:.0f} mW of the idle board"
        return Energy(None, gross / queries, mean_mw, note)
    return Energy(net / queries, gross / queries, mean_mw)
