"""Descriptors as a place map stores them, and how alike two of them are.

All kinds compare integers, so a score is the same float32 on every machine:

- int8: ``q = round_half_to_even(d * (1 / s))``, ``s = max(max|d|, 1e-5) / 127``;
  ``norm = 1 / sqrt(float32(sum q^2))``; ``score = (float32(dot) * norm_query) * norm_place``,
  cut to [-1, 1].
- binary: bit j of byte i is ``d[8 i + j] > mean[8 i + j]`` (mean 0 where a band has none);
  ``score = 1 - (2 * hamming) / dim``.
- weighed: stored as binary; a bit counts as much as the query's number lies from the mean:
  ``w = |int8 of (d / 2 - mean / 2)|``,
  ``score = 1 - (2 * sum of w where bits differ) / (sum of w)``. The best :data:`WEIGHED_BEST`
  places by Hamming distance are ranked by it, those behind them as in binary maps, with the scores
  that these give. Where every score is asked for, every place is weighed.

A descriptor that rounds to zeros has no direction and is refused by all kinds. The device
computes scores in C (``runtime/core/common/map_search.c``); tests compare it with NumPy's
(``tests/support/score_reference.py``).
"""

from __future__ import annotations

import math
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
    q = _directed(descriptors)
    squares = np.einsum("nd,nd->n", q, q, dtype=np.int64)
    norms = np.float32(1.0) / np.sqrt(squares.astype(np.float32))
    return q, norms.astype(np.float32)


def _directed(descriptors: F32) -> I8:
    """``descriptors`` float32 [N, D] as int8; MapError where one rounds to zeros only."""
    q, _ = quantise(descriptors)
    empty = ~q.any(axis=1)
    if empty.any():
        raise MapError(f"descriptor {int(np.argmax(empty))} is zero: it cannot be a place")
    return q


def binary_rows(descriptors: F32, mean: F32 | None = None) -> U8:
    """float32 [N, D] -> uint8 [N, D / 8], lowest bit first: which numbers are above ``mean``.

    Raises:
        MapError: D is not a multiple of 8, or a descriptor rounds to zeros only.
    """
    if descriptors.shape[1] % 8:
        raise MapError(
            f"binary maps need a multiple of 8 elements, not {descriptors.shape[1]}: use int8"
        )
    if len(descriptors):
        _directed(descriptors)
    return np.packbits(descriptors > (0 if mean is None else mean), axis=1, bitorder="little")


#: Places of a weighed map that are ranked by their bits' weights.
WEIGHED_BEST = 16


def pair_scores(
    data: I8 | U8, norms: F32 | None, dim: int, mine: NDArray[np.integer], others: NDArray[Any]
) -> F32:
    """Score of each of the stored rows ``mine`` with that of ``others``: float32 [pairs].

    Args:
        data: int8 [N, D] with ``norms`` [N], or uint8 [N, D / 8] without.
        dim: elements of a descriptor.
        mine, others: numbers of rows, as many of the one as of the other.
    """
    step = max(_BLOCK_ELEMENTS // data.shape[1], 1)
    found = np.empty(len(mine), dtype=np.float32)
    for start in range(0, len(mine), step):
        part = slice(start, start + step)
        left, right = data[mine[part]], data[others[part]]
        if norms is None:
            hamming = _BITS_SET[left ^ right].sum(axis=1, dtype=np.int64).astype(np.float32)
            found[part] = np.float32(1.0) - (np.float32(2.0) * hamming) / np.float32(dim)
        else:
            # As float64, which holds every such sum exactly, in half the time of int64.
            dots = np.einsum("nd,nd->n", left, right, dtype=np.float64).astype(np.float32)
            found[part] = (dots * norms[mine[part]]) * norms[others[part]]
    return np.clip(found, np.float32(-1), np.float32(1))


def score_of_cosine(kind: str, cosine: float) -> float:
    """The score that descriptors of this cosine have in a map of ``kind``: a sign differs as often
    as the angle is wide."""
    if kind == "int8":
        return cosine
    return 1 - 2 * math.acos(max(-1.0, min(1.0, cosine))) / math.pi


def cosines_of_signs(scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The cosine of descriptors whose signs, counted, have each score: as a rule what weighed
    scores estimate. -infinity, of a place that was left out, stays."""
    out = np.isneginf(scores)
    return np.where(out, scores, np.sin(np.where(out, 0, scores) * (np.pi / 2)))


def nearest_band(bands: Sequence[tuple[float, float]], k: float, tokens: float) -> int:
    """Index of the band (k, tokens) that a query at (k, tokens) searches; first of equals.

    The one made at the nearest higher or equal k, else at the highest; among bands of that k the
    one made with the nearest higher or equal share of tokens, else with the most
    (docs/placemap-log.md says what was measured).
    """
    asked = (np.float32(k), np.float32(tokens))
    made = [(np.float32(band[0]), np.float32(band[1])) for band in bands]
    left = list(range(len(made)))
    for dial in (0, 1):
        values = [made[index][dial] for index in left]
        above = [value for value in values if value >= asked[dial]]
        chosen = min(above) if above else max(values)
        left = [index for index, value in zip(left, values, strict=True) if value == chosen]
    return left[0]
