"""Recall and its uncertainty, from descriptors alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.reference import quantise
from tatvpr_edge.spec.scores import WEIGHED_BEST
from tatvpr_edge.spec.shortage import check_room

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

KINDS = ("float", "int8", "binary", "weighed")
#: Of these the signs are compared.
SIGNS = ("binary", "weighed")
RANKS = (1, 5, 10)
#: Where positions say what is right, and nobody says how near: metres, as the field has it.
WITHIN_M = 25.0
#: What OpenBLAS takes for a thread's first product; without it, it ends the process.
_PRODUCT_MB = 40


@dataclass(frozen=True)
class Rows:
    """Descriptors as a place map of one kind compares them.

    Attributes:
        values: float32 [N, D]; 8-bit values and signs are whole numbers.
        lengths: float32 [N], by which scores are divided; None where they need not be.
        weights: float32 [N, D], whole numbers: what each sign of a query counts in a weighed map.
    """

    values: Floats
    lengths: Floats | None = None
    weights: Floats | None = None


def rows_of(descriptors: Floats, kind: str) -> Rows:
    """Descriptors [N, D] of one of :data:`KINDS`.

    Raises:
        UsageError: unknown kind.
    """
    if kind == "float":
        return Rows(descriptors)
    if kind == "int8":
        values = quantise(descriptors)[0].astype(np.float32)
        return Rows(values, np.sqrt((values * values).sum(1)))
    if kind in SIGNS:
        values = np.where(descriptors > 0, np.float32(1), np.float32(-1))
        if kind == "binary":
            return Rows(values)
        half = np.float32(0.5)  # as weighed_scores of tests/support, which this is compared with
        weights = np.abs(quantise(half * descriptors)[0].astype(np.float32))
        return Rows(values, weights=weights)
    raise UsageError(f"unknown descriptor kind {kind!r}: known are {', '.join(KINDS)}")


def scores_of(queries: Rows, gallery: Rows, kind: str) -> Floats:
    """Scores ``[Q, G]``: cosine of floats, cosine of 8-bit values with one scale a row, or
    agreement of signs; which is what the places of a weighed map are first ranked by."""
    check_room(_PRODUCT_MB, "comparing descriptors")
    products = queries.values @ gallery.values.T
    if kind in SIGNS:
        return products / np.float32(queries.values.shape[1])
    if queries.lengths is None or gallery.lengths is None:
        return products
    return (products / (queries.lengths[:, None] * gallery.lengths)).astype(np.float32)


def weighed_scores_of(queries: Rows, gallery: Rows) -> Floats:
    """Scores ``[Q, G]`` of a weighed map, every sign weighed: for the best few of each query.

    What ``weighed_scores`` of ``tests/support/score_reference.py`` gives, from one product.
    """
    assert queries.weights is not None
    check_room(_PRODUCT_MB, "comparing descriptors")
    sums = queries.weights.sum(axis=1, keepdims=True)
    # Whole numbers below 2^24: exact, in whatever order they are summed.
    differing = (sums - (queries.weights * queries.values) @ gallery.values.T) / np.float32(2)
    scores = np.float32(1) - (np.float32(2) * differing) / np.where(sums > 0, sums, np.float32(1))
    plain = scores_of(queries, gallery, "binary")
    return np.where(sums > 0, scores, plain)


class BestPlaces:
    """The best ``count`` places of each query, of a gallery that comes in pieces: as much memory
    as the answers need, however large the gallery.

    Ties go to the lower place, as in a place map.

    Args:
        weighed: the best few are ranked anew at the end, as in a weighed map: by the scores that
            :meth:`add` was given beside the plain ones.
    """

    def __init__(self, queries: int, count: int = max(RANKS), weighed: bool = False) -> None:
        count = max(count, WEIGHED_BEST) if weighed else count
        self.scores = np.full((queries, count), -np.inf, np.float32)
        self.right = np.zeros((queries, count), np.bool_)
        self.places = np.full((queries, count), -1, np.int64)
        self._weighed = np.full((queries, count), -np.inf, np.float32) if weighed else None
        self._answerable = np.zeros(queries, np.bool_)
        self._seen = 0

    def add(
        self,
        scores: Floats,
        right: Bools,
        allowed: Bools | None = None,
        weighed: Floats | None = None,
    ) -> None:
        """The next places ``[queries, n]``: their scores, which are right and may be given, and
        the scores that the best few are ranked by in the end."""
        if allowed is not None:
            scores, right = np.where(allowed, scores, np.float32(-np.inf)), right & allowed
        self._answerable |= right.any(axis=1)
        first, count = self._seen, self.scores.shape[1]
        self._seen += scores.shape[1]
        better = np.flatnonzero(scores.max(axis=1) > self.scores[:, -1])
        if not len(better):
            return
        # Earlier places stand first, so that a stable sort gives ties to the lower one.
        own = np.broadcast_to(np.arange(first, self._seen), (len(better), scores.shape[1]))
        merged = np.concatenate([self.scores[better], scores[better]], axis=1)
        order = np.argsort(-merged, axis=1, kind="stable")[:, :count]
        parts: list[tuple[NDArray[Any], NDArray[Any]]] = [
            (self.right, right[better]),
            (self.places, own),
        ]
        if self._weighed is not None:
            assert weighed is not None
            parts.append((self._weighed, weighed[better]))
        for kept, new in parts:
            kept[better] = np.take_along_axis(
                np.concatenate([kept[better], new], axis=1), order, axis=1
            )
        self.scores[better] = np.take_along_axis(merged, order, axis=1)

    def finish(self) -> None:
        """All places were added: rank the best few of a weighed map anew."""
        if self._weighed is None:
            return
        found = np.isfinite(self.scores[:, :WEIGHED_BEST])
        final = np.where(found, self._weighed[:, :WEIGHED_BEST], np.float32(-np.inf))
        order = np.argsort(-final, axis=1, kind="stable")
        self.scores[:, :WEIGHED_BEST] = final
        for kept in (self.scores, self.right, self.places):
            kept[:, :WEIGHED_BEST] = np.take_along_axis(kept[:, :WEIGHED_BEST], order, axis=1)

    def ranks(self) -> NDArray[np.int64]:
        """For each query the rank (0 is best) of its first right answer, ``count`` where that is
        not among the best; -1 where no place would be right."""
        hit = self.right & np.isfinite(self.scores)
        ranks = np.where(hit.any(axis=1), hit.argmax(axis=1), self.scores.shape[1])
        return np.where(self._answerable, ranks, -1)


def recall(ranks: NDArray[np.int64], at: int) -> float:
    """Percent of the answerable queries whose first right answer is among the best ``at``.

    Raises:
        DataError: no query is answerable.
    """
    answerable = ranks[ranks >= 0]
    if not len(answerable):
        raise DataError("no query has a right answer in the map: there is no recall to compute")
    return 100.0 * float(np.mean(answerable < at))


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval, in points."""

    mean: float
    low: float
    high: float


def paired_bootstrap(a: Bools, b: Bools, blocks: NDArray[np.int64] | None = None) -> Interval:
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
    rng = np.random.default_rng(0)
    # Draws go in turns: all of them for a hundred thousand queries would take gigabytes.
    turns = max(1, _DRAWN_TOGETHER // len(sums))
    means = np.empty(_DRAWS)
    for start in range(0, _DRAWS, turns):
        drawn = rng.integers(0, len(sums), (min(turns, _DRAWS - start), len(sums)))
        means[start : start + turns] = 100.0 * sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(100.0 * float(sums.sum() / counts.sum()), float(low), float(high))


#: Draws of the bootstrap, and numbers drawn together.
_DRAWS, _DRAWN_TOGETHER = 2000, 1 << 21
