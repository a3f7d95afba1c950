"""One setting of the model with what it costs, and the nearest one to a wish."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tatvpr_edge.spec.limits import check_fraction


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of the model, in the order of ``tatvpr_level``; what is not known is NaN."""

    k: float
    tokens: float
    p50_ms: float = math.nan
    p95_ms: float = math.nan
    energy_mj: float = math.nan
    recall: float = math.nan

    def text(self) -> str:
        """The setting, for people."""
        return f"k={self.k:g}" if self.tokens == 1.0 else f"k={self.k:g}, tokens={self.tokens:g}"


def nearest_level(levels: Sequence[Level], k: float) -> int:
    """The level nearest to a k that the user names, of all tokens.

    Raises:
        UsageError: k outside (0, 1].
    """
    check_fraction(k, "k")
    return min(
        range(len(levels)), key=lambda i: (abs(levels[i].k - k) + abs(levels[i].tokens - 1.0), i)
    )
