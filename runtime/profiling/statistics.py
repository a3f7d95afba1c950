"""Latencies of one run: percentiles, and whether the run was steady."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Milliseconds from frame to descriptor; percentiles interpolate linearly between samples."""

    p50: float
    p95: float
    p99: float
    mean: float
    low: float
    high: float
    count: int

    def as_json(self) -> dict[str, float | int]:
        """For manifests and reports."""
        return {
            "p50": self.p50,
            "p95": self.p95,
            "p99": self.p99,
            "mean": self.mean,
            "min": self.low,
            "max": self.high,
            "count": self.count,
        }


def latency_of(samples_ms: Sequence[float]) -> Latency:
    """Percentiles of a run of at least one query.

    Raises:
        ValueError: no sample, or one that is negative or not finite.
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    if values.size == 0 or not np.all(np.isfinite(values)) or values.min() < 0:
        raise ValueError("latencies are a non-empty list of finite milliseconds from 0 up")
    p50, p95, p99 = (float(x) for x in np.percentile(values, (50, 95, 99)))
    return Latency(
        p50, p95, p99, float(values.mean()), float(values.min()), float(values.max()), values.size
    )


def drift_of(samples_ms: Sequence[float]) -> float:
    """Median of the last third over that of the first: above 1, the run became slower.

    1 for fewer than nine samples, which are too few to tell.
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    third = len(values) // 3
    if third < 3:
        return 1.0
    first = float(np.median(values[:third]))
    return float(np.median(values[-third:])) / first if first > 0 else 1.0
