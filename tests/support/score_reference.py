"""Scores as ``spec/scores.py`` states them, in NumPy: what the device's C is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.floats import F32
from tatvpr_edge.spec.reference import I8, quantise
from tatvpr_edge.spec.scores import U8, WEIGHED_BEST, binary_rows

#: Places elsewhere without which a margin says nothing (runtime/core/common/map_search.c).
FEWEST_RIVALS = 8
# Rows scored at once: the widened copy of a block stays inside a second-level cache.
_BLOCK_ELEMENTS = 1 << 19
# Below this many elements every partial sum of int8 products is exact in float32.
_EXACT_IN_FLOAT32 = (1 << 24) // (127 * 127)
_BITS_SET = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def int8_scores(query: I8, query_norm: np.float32, rows: I8, norms: F32) -> F32:
    """Cosine of ``query`` [D] with each of ``rows`` [N, D]."""
    dim = rows.shape[1]
    wide: type[np.floating[Any]] = np.float32 if dim <= _EXACT_IN_FLOAT32 else np.float64
    widened = query.astype(wide)
    step = max(_BLOCK_ELEMENTS // dim, 1)
    dots = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        dots[start : start + step] = np.dot(rows[start : start + step].astype(wide), widened)
    scores: F32 = np.clip((dots * query_norm) * norms, np.float32(-1), np.float32(1))
    return scores


def binary_scores(query: U8, rows: U8, dim: int) -> F32:
    """``1 - 2 * hamming / dim`` of ``query`` [D / 8] with each of ``rows`` [N, D / 8]."""
    step = max(_BLOCK_ELEMENTS // rows.shape[1], 1)
    hamming = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        differing = rows[start : start + step] ^ query
        hamming[start : start + step] = _BITS_SET[differing].sum(axis=1, dtype=np.int64)
    return np.float32(1.0) - (np.float32(2.0) * hamming) / np.float32(dim)


def weighed_scores(query: F32, mean: F32 | None, rows: U8) -> F32:
    """Scores of ``query`` float32 [D] with rows [N, D / 8] of a weighed map, every bit weighed."""
    half = np.float32(0.5)
    apart = half * query - half * (np.float32(0) if mean is None else mean)
    weights = np.abs(quantise(apart[None])[0][0].astype(np.int64))
    bits = np.unpackbits(rows, axis=1, bitorder="little").astype(np.bool_)
    differing = (bits != (query > (0 if mean is None else mean))) @ weights
    if not weights.any():
        return binary_scores(binary_rows(query[None], mean)[0], rows, len(query))
    scores: F32 = np.float32(1.0) - (np.float32(2.0) * differing.astype(np.float32)) / np.float32(
        weights.sum()
    )
    return scores


def best(scores: F32, count: int) -> NDArray[np.int64]:
    """Indices of the ``count`` largest, best first, ties to the lower index."""
    if count < len(scores):
        bound = np.partition(scores, len(scores) - count)[len(scores) - count]
        candidates = np.flatnonzero(scores >= bound)
    else:
        candidates = np.arange(len(scores))
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order][:count]


def weighed_best(
    plain: F32, query: F32, mean: F32 | None, rows: U8, count: int
) -> tuple[NDArray[np.int64], F32]:
    """The ``count`` best places of a weighed map, and their scores.

    Args:
        plain: every score as of a binary map; -infinity: left out.
        query: float32 [D]; ``rows`` uint8 [N, D / 8].
    """
    order = best(plain, max(count, WEIGHED_BEST))
    order = order[np.isfinite(plain[order])]
    found = plain[order].copy()
    found[:WEIGHED_BEST] = weighed_scores(query, mean, rows[order[:WEIGHED_BEST]])
    anew = np.arange(len(order))
    anew[:WEIGHED_BEST] = np.argsort(-found[:WEIGHED_BEST], kind="stable")
    return order[anew][:count], found[anew][:count]
