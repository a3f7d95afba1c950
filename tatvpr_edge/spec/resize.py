"""Squash a frame to the model's square exactly as Pillow's BILINEAR does, in fixed point.

Pillow (``libImaging/Resample.c``) resamples across first, then down; from version 13 the other way
round where the height shrinks much more than the width (Pillow pull request 9549), which is the
rule here. Each output pixel is a weighted sum over a window of input pixels; the window widens when
the image shrinks (antialiasing); weights are integers with 22 fractional bits and each pass rounds
to bytes. The C core repeats these lines; double arithmetic here and there is IEEE, without fused
multiply-add.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
PRECISION_BITS = 22


@lru_cache(maxsize=64)
def resize_weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows of one axis: ``(first [target], weight [target, taps])``, unused taps zero.

    Output pixel i is ``(2^21 + sum_j weight[i, j] * pixel[first[i] + j]) >> 22``.
    """
    scale = source / target
    support = max(scale, 1.0)
    centre = (np.arange(target, dtype=np.float64) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), source)
    taps = int((last - first).max())
    offset = np.arange(taps, dtype=np.int64)
    inside = offset < (last - first)[:, None]
    position = (first[:, None] + offset - centre[:, None]) + 0.5
    weight = np.maximum(1.0 - np.abs(position * (1.0 / support)), 0.0) * inside
    # Left to right, one addition at a time, as the C loop does: np.sum pairs its terms.
    total = np.zeros(target)
    for tap in range(taps):
        total += weight[:, tap]
    weight /= total[:, None]
    return first, (weight * (1 << PRECISION_BITS) + 0.5).astype(np.int64)


def _pass(rows: U8, target: int) -> U8:
    """Resample axis 1 of ``rows`` [N, source, 3] to [N, target, 3]."""
    first, weight = resize_weights(rows.shape[1], target)
    total = np.full((rows.shape[0], target, rows.shape[2]), 1 << (PRECISION_BITS - 1), np.int64)
    for tap in range(weight.shape[1]):
        # Taps past a window have weight zero; the index is clamped to stay inside the frame.
        column = np.minimum(first + tap, rows.shape[1] - 1)
        total += rows[:, column] * weight[:, tap][:, None]
    return np.minimum(total >> PRECISION_BITS, 255).astype(np.uint8)


def down_first(width: int, height: int, size: int) -> bool:
    """Whether the vertical pass comes first (each pass rounds, so the order shows in the bytes)."""
    return height - size > max(2 * (width - size), 0)


def squash(frame: U8, size: int) -> U8:
    """``frame`` uint8 [H, W, 3] of any size to uint8 [size, size, 3].

    Equal byte for byte to ``PIL.Image.fromarray(frame).resize((size, size), BILINEAR)`` of
    Pillow 13; older Pillow differs in the last bit where :func:`down_first`.
    """
    height, width = frame.shape[:2]
    if down_first(width, height, size):
        down = _pass(frame.transpose(1, 0, 2), size).transpose(1, 0, 2)
        return _pass(down, size)
    across = _pass(frame, size)
    return np.ascontiguousarray(_pass(across.transpose(1, 0, 2), size).transpose(1, 0, 2))
