"""Recall and its uncertainty, from descriptors alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import UsageError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

KINDS = ("float", "int8", "binary")
RANKS = (1, 5, 10)


def similarity(queries: Floats, gallery: Floats, kind: str = "float") -> Floats:
    """Scores ``[Q, G]`` as a place map of that kind computes them: cosine of floats, cosine of
    8-bit values with one scale a row, or agreement of signs.

    Raises:
        UsageError: unknown kind.
    """
    if kind == "float":
        return queries @ gallery.T
    if kind == "int8":
        a, b = (_int8(x) for x in (queries, gallery))
        lengths = np.sqrt((a * a).sum(1))[:, None] * np.sqrt((b * b).sum(1))
        return ((a @ b.T) / lengths).astype(np.float32)
    if kind == "binary":
        a, b = (np.where(x > 0, np.float32(1), np.float32(-1)) for x in (queries, gallery))
        return (a @ b.T) / np.float32(queries.shape[1])
    raise UsageError(f"unknown descriptor kind {kind!r}: known are {', '.join(KINDS)}")


def _int8(x: Floats) -> Floats:
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-5)) / np.float32(127)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.float32)


def ranks_of_right(scores: Floats, right: Bools, allowed: Bools | None = None) -> NDArray[np.int64]:
    """For each query the rank (0 is best) of its first right answer; ties to the lower index, as in
    a place map. Queries without a possible right answer have rank -1.
    """
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
        right = right & allowed
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(right, order, axis=1)
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)


def recall(ranks: NDArray[np.int64], at: int) -> float:
    """Percent of the answerable queries whose first right answer is among the best ``at``."""
    answerable = ranks[ranks >= 0]
    return float("nan") if not len(answerable) else 100.0 * float(np.mean(answerable < at))


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval, in points."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: Bools, b: Bools, *, draws: int = 2000, seed: int = 0, blocks: NDArray[np.int64] | None = None
) -> Interval:
    """``a - b`` in points: hits of two describers on the same queries.

    Args:
        blocks: queries with the same number are drawn together (the same frame under several
            perturbations is not several frames); None draws each by itself.
    """
    differences = a.astype(np.float64) - b.astype(np.float64)
    if blocks is None:
        blocks = np.arange(len(differences))
    names, index = np.unique(blocks, return_inverse=True)
    sums = np.bincount(index, differences, len(names))
    counts = np.bincount(index, minlength=len(names))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), (draws, len(sums)))
    means = 100.0 * sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(100.0 * float(sums.sum() / counts.sum()), float(low), float(high))
