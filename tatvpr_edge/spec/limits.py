"""The range of k and tokens, and how many channels or tokens a fraction keeps: one rule, here."""

from __future__ import annotations

import math
from typing import Any

from .errors import UsageError
from .values import number, shown, wrong

DEFAULT_KS = (0.2, 0.4, 0.6, 1.0)


def check_fraction(value: Any, name: str) -> float:
    """``value`` as a float in (0, 1].

    Raises:
        UsageError: it is not a number, NaN, or outside (0, 1]; the text says the range.
    """
    remedy = f"{name} is the fraction kept: a number above 0 and at most 1, such as 0.2"
    given = number(value, name, remedy)
    if not 0.0 < given <= 1.0:
        raise wrong(value, name, remedy)
    return given


def check_k(value: Any, k_range: tuple[float, float]) -> float:
    """``value`` as a k that an artifact was built for; as float32, which every backend receives.

    Raises:
        UsageError: it is no fraction, or outside the range.
    """
    import numpy as np

    k = check_fraction(value, "k")
    low, high = k_range
    if not np.float32(low) <= np.float32(k) <= np.float32(high):
        raise UsageError(
            f"k is {k:g}: this artifact was built for {low:g} to {high:g}; "
            "build it with a wider --k-range"
        )
    return k


def default_ks(k_range: tuple[float, float]) -> list[float]:
    """What is measured, or tried, where nothing says which k: of DEFAULT_KS those that an artifact
    was built for, ascending; where it has none of them, its highest."""
    low, high = k_range
    return [k for k in DEFAULT_KS if low <= k <= high] or [high]


def check_bands(bands: Any, k_range: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Pairs of (k, tokens), each in (0, 1], no two the same as a map keeps them (float32), and of
    a k that the artifact which describes was built for: no query could be asked at another.
    None: one band, at the highest k, at most 1, with all tokens.

    Raises:
        UsageError: they are none, one is named twice, or the artifact was not built for its k.
    """
    import numpy as np

    if bands is None:
        return ((min(1.0, k_range[1]), 1.0),)
    meaning = "(k, tokens) of each band, such as ((1.0, 1.0), (0.2, 1.0))"
    try:
        pairs = [(k, tokens) for k, tokens in bands]
    except (TypeError, ValueError):
        raise wrong(bands, "bands", meaning) from None
    made = tuple((check_k(k, k_range), check_fraction(tokens, "tokens")) for k, tokens in pairs)
    if len({(np.float32(k), np.float32(tokens)) for k, tokens in made}) != len(made):
        raise UsageError(f"bands {shown(bands)} name one band twice: a query searches but one")
    return made


def kept(fraction: float, total: int) -> int:
    """How many of ``total`` are kept: ``clip(floor(float64(fraction) * total + 0.5), 1, total)``.

    ``fraction`` is rounded to float32 first, because that is what every backend receives.
    """
    import numpy as np

    exact = float(np.float32(fraction))
    return max(1, min(total, math.floor(exact * total + 0.5)))
