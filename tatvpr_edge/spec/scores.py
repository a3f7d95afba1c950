"""Descriptors as a place map stores them, and how alike two of them are.

Both kinds are integers, so a score is the same float32 on every machine:

- int8: ``q = round_half_to_even(d / s)``, ``s = max(max|d|, 1e-5) / 127``;
  ``norm = 1 / sqrt(float32(sum q^2))``; ``score = (float32(dot) * norm_query) * norm_place``.
- binary: bit j of byte i is ``d[8 i + j] > 0``; ``score = 1 - (2 * hamming) / dim``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MapError
from .floats import F32
from .reference import I8, quantise

U8 = NDArray[np.uint8]

# Rows scored at once: the widened copy of a block stays inside a second-level cache.
_BLOCK_ELEMENTS = 1 << 19
# Below this many elements every partial sum of int8 products is exact in float32.
_EXACT_IN_FLOAT32 = (1 << 24) // (127 * 127)
_BITS_SET = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def check_descriptors(descriptors: F32, dim: int | None = None) -> F32:
    """``descriptors`` as float32 [N, D].

    Raises:
        MapError: not two-dimensional, another D, or not finite.
    """
    rows = np.asarray(descriptors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise MapError(f"descriptors of shape {rows.shape}: expected [places, elements]")
    if dim is not None and rows.shape[1] != dim:
        raise MapError(f"descriptors have {rows.shape[1]} elements, the map has {dim}")
    if not np.isfinite(rows).all():
        row = int(np.argwhere(~np.isfinite(rows))[0, 0])
        raise MapError(f"descriptor {row} is not finite: it cannot be a place")
    return rows


def int8_rows(descriptors: F32) -> tuple[I8, F32]:
    """float32 [N, D] -> (int8 [N, D], norms float32 [N]).

    Raises:
        MapError: a descriptor rounds to zeros only, so that it has no direction.
    """
    if not len(descriptors):
        return np.zeros(descriptors.shape, np.int8), np.zeros(0, np.float32)
    q, _ = quantise(descriptors)
    squares = np.einsum("nd,nd->n", q, q, dtype=np.int64)
    if not squares.all():
        raise MapError(f"descriptor {int(np.argmin(squares))} is zero: it cannot be a place")
    norms = np.float32(1.0) / np.sqrt(squares.astype(np.float32))
    return q, norms.astype(np.float32)


def binary_rows(descriptors: F32) -> U8:
    """float32 [N, D] -> uint8 [N, D / 8], lowest bit first.

    Raises:
        MapError: D is not a multiple of 8.
    """
    if descriptors.shape[1] % 8:
        raise MapError(
            f"binary maps need a multiple of 8 elements, not {descriptors.shape[1]}: use int8"
        )
    return np.packbits(descriptors > 0, axis=1, bitorder="little")


def int8_scores(query: I8, query_norm: np.float32, rows: I8, norms: F32) -> F32:
    """Cosine of ``query`` [D] with each of ``rows`` [N, D]."""
    dim = rows.shape[1]
    wide: type[np.floating[Any]] = np.float32 if dim <= _EXACT_IN_FLOAT32 else np.float64
    widened = query.astype(wide)
    step = max(_BLOCK_ELEMENTS // dim, 1)
    dots = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        dots[start : start + step] = np.dot(rows[start : start + step].astype(wide), widened)
    return (dots * query_norm) * norms


def binary_scores(query: U8, rows: U8, dim: int) -> F32:
    """``1 - 2 * hamming / dim`` of ``query`` [D / 8] with each of ``rows`` [N, D / 8]."""
    step = max(_BLOCK_ELEMENTS // rows.shape[1], 1)
    hamming = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        differing = rows[start : start + step] ^ query
        hamming[start : start + step] = _BITS_SET[differing].sum(axis=1, dtype=np.int64)
    return np.float32(1.0) - (np.float32(2.0) * hamming) / np.float32(dim)


def best(scores: F32, count: int) -> NDArray[np.int64]:
    """Indices of the ``count`` largest, best first, ties to the lower index."""
    if count < len(scores):
        bound = np.partition(scores, len(scores) - count)[len(scores) - count]
        candidates = np.flatnonzero(scores >= bound)
    else:
        candidates = np.arange(len(scores))
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order][:count]


def nearest_band(bands: Sequence[tuple[float, float]], k: float, tokens: float) -> int:
    """Index of the band (k, tokens) that costs a query at (k, tokens) least; first of equals.

    The cost is ``max(k'/k, (k/k')^2) * max(t/t', t'/t)`` for a band made at k' and t': places
    described at a lower k than the query's lose more than those at a higher one
    (docs/placemap.md). In double, as the C core computes it.
    """
    asked_k, asked_tokens = float(np.float32(k)), float(np.float32(tokens))

    def cost(band: tuple[float, float]) -> float:
        band_k, band_tokens = float(np.float32(band[0])), float(np.float32(band[1]))
        below = asked_k / band_k
        of_k = band_k / asked_k if band_k >= asked_k else below * below
        return of_k * max(band_tokens / asked_tokens, asked_tokens / band_tokens)

    costs = [cost(band) for band in bands]
    return costs.index(min(costs))
