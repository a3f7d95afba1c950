"""What a query's arguments may be: one line for each that is none."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np

from tatvpr_edge.spec.errors import UsageError


def refuse_ignored(k: float | str | None, **given: Any) -> None:
    """Raise UsageError where an argument is given that only ``k="auto"`` heeds."""
    for name, value in given.items():
        if value is not None:
            at = "the artifact's own" if k is None else f"{k!r}"
            raise UsageError(
                f'{name}={value!r} belongs to k="auto", and k is {at}: give k="auto", or leave '
                f"{name} out"
            )


def check_top(top: Any) -> None:
    """Raise UsageError where ``top`` is no number of candidates."""
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise UsageError(f"top is {top!r}: the number of candidates, from 1 up")


def check_time(time_s: Any) -> float:
    """When a frame was taken, in seconds since 1970: now, where it is None.

    Raises:
        UsageError: it is no such number.
    """
    if time_s is None:
        return time.time()
    if isinstance(time_s, (bool, str)) or not 0 <= float(time_s) < 2**43:
        raise UsageError(f"time_s is {time_s!r}: seconds since 1970")
    return float(time_s)


def check_excluded(last: Any) -> int | float:
    """How many places, or seconds (a float), ``exclude_last`` leaves out.

    Raises:
        UsageError: it is neither a number of places nor seconds as in "30s".
    """
    if isinstance(last, str):
        seconds = re.fullmatch(r"(\d+(?:\.\d+)?) *s", last.strip())
        if seconds:
            return float(seconds[1])
    elif not isinstance(last, bool) and isinstance(last, (int, np.integer)) and last >= 0:
        return int(last)
    raise UsageError(
        f'exclude_last is {last!r}: a number of places from 0 up, or seconds as in "30s"'
    )
