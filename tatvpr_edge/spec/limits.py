"""The range of k and tokens, and how many channels or tokens a fraction keeps: one rule, here."""

from __future__ import annotations

import math
from typing import Any

from .errors import UsageError


def check_fraction(value: Any, name: str) -> float:
    """``value`` as a float in (0, 1].

    Raises:
        UsageError: it is not a number, NaN, or outside (0, 1]; the text says the range.
    """
    remedy = f"{name} is the fraction kept: a number above 0 and at most 1, such as 0.2"
    if isinstance(value, (str, bytes, bool)):
        raise UsageError(f"{name} is {value!r}: {remedy}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r}: {remedy}") from None
    if math.isnan(number) or not 0.0 < number <= 1.0:
        raise UsageError(f"{name} is {number:g}: {remedy}")
    return number


def kept(fraction: float, total: int) -> int:
    """How many of ``total`` are kept: ``clip(floor(float64(fraction) * total + 0.5), 1, total)``.

    ``fraction`` is rounded to float32 first, because that is what every backend receives.
    """
    import numpy as np

    exact = float(np.float32(fraction))
    return max(1, min(total, math.floor(exact * total + 0.5)))
