"""What a query's arguments, and an added place's, may be: one line for each that is none."""

from __future__ import annotations

import math
import re
import time
from typing import Any

from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.maptypes import LATEST_S
from tatvpr_edge.spec.values import between, number, shown, whole, wrong


def refuse_ignored(k: float | str | None, **given: Any) -> None:
    """Raise UsageError where an argument is given that only ``k="auto"`` heeds."""
    for name, value in given.items():
        if value is not None:
            at = "the artifact's own" if k is None else shown(k)
            raise UsageError(
                f'{name}={shown(value)} belongs to k="auto", and k is {at}: give k="auto", or '
                f"leave {name} out"
            )


def check_top(top: Any) -> int:
    """``top`` as a number of candidates.

    Raises:
        UsageError: it is none.
    """
    return whole(top, 1, "top", "the number of candidates, from 1 up")


def check_time(time_s: Any) -> float:
    """When a frame was taken, in seconds since 1970: now, where it is None.

    Raises:
        UsageError: it is no such number.
    """
    if time_s is None:
        return time.time()
    return between(time_s, 0, LATEST_S, "time_s", "seconds, not milliseconds, since 1970")


def added_at(time_s: Any) -> float:
    """When a place was seen, in seconds since 1970: now, where it is None; NaN: unknown.

    Raises:
        UsageError: it is no number.
    """
    if time_s is None:
        return time.time()
    meaning = "seconds since 1970, or None for now"
    given = number(time_s, "time_s", meaning)
    return given if math.isnan(given) else check_time(given)


def check_excluded(last: Any) -> int | float:
    """How many places, or seconds (a float), ``exclude_last`` leaves out.

    Raises:
        UsageError: it is neither a number of places nor seconds as in "30s".
    """
    meaning = 'a number of places from 0 up, or seconds as in "30s"'
    if isinstance(last, str):
        seconds = re.fullmatch(r"(\d+(?:\.\d+)?) *s", last.strip())
        if seconds:
            return float(seconds[1])
        raise wrong(last, "exclude_last", meaning)
    return whole(last, 0, "exclude_last", meaning)


def left_out(last: Any, taken_s: float) -> dict[str, int | tuple[float, float]]:
    """What ``exclude_last`` leaves out of a search for a frame of ``taken_s``, as
    :meth:`PlaceMap.search` takes it.

    Raises:
        UsageError: as :func:`check_excluded`.
    """
    excluded = check_excluded(last)
    if isinstance(excluded, float):
        # A place that was stored a moment after its frame was taken is later than the next frame.
        return {"without_s": (taken_s - excluded, taken_s + excluded)}
    return {"last": excluded}
