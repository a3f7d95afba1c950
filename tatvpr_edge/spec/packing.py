"""Ternary weights to bytes and back: four weights a byte, two bits each, lowest bits first.

``code = w + 1`` (0 -> -1, 1 -> 0, 2 -> +1). The tail of a row is padded with code 1, so that
padding is the weight zero. The stored type is int8: the two's-complement view of those bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError

WEIGHTS_PER_BYTE = 4
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)


def packed_width(k_in: int) -> int:
    """Bytes in a packed row of ``k_in`` weights."""
    return -(-k_in // WEIGHTS_PER_BYTE)


def pack_ternary(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Pack ``weights`` [N, K] of values -1, 0, +1 to int8 [N, ceil(K/4)].

    Raises:
        ModelError: a weight is none of -1, 0, +1.
    """
    weights = np.asarray(weights)
    if weights.ndim != 2:
        raise ModelError(f"ternary weights have shape {weights.shape}: expected [outputs, inputs]")
    if not np.isin(weights, (-1, 0, 1)).all():
        raise ModelError("ternary weights hold values other than -1, 0 and +1: ternarise first")
    rows, columns = weights.shape
    codes = np.ones((rows, packed_width(columns) * WEIGHTS_PER_BYTE), dtype=np.uint8)
    codes[:, :columns] = (weights.astype(np.int16) + 1).astype(np.uint8)
    quads = codes.reshape(rows, -1, WEIGHTS_PER_BYTE) << _SHIFTS
    return np.bitwise_or.reduce(quads, axis=2).astype(np.uint8).view(np.int8)


def unpack_ternary(packed: NDArray[np.int8], k_in: int, name: str = "weights") -> NDArray[np.int8]:
    """Unpack int8 [N, ceil(K/4)] to int8 [N, K].

    Raises:
        ModelError: the width does not fit ``k_in``, a code is 3, or padding is not code 1.
    """
    packed = np.ascontiguousarray(packed)
    if packed.ndim != 2 or packed.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        raise ModelError(f"{name}: packed ternary weights must be int8 [N, ceil(K/4)]")
    if packed.shape[1] != packed_width(k_in):
        raise ModelError(
            f"{name}: {packed.shape[1]} bytes a row cannot hold {k_in} ternary weights "
            f"(that takes {packed_width(k_in)}): export the model again"
        )
    codes = (packed.view(np.uint8)[:, :, None] >> _SHIFTS) & 3
    codes = codes.reshape(packed.shape[0], -1)
    if (codes == 3).any():
        row = int(np.argwhere(codes == 3)[0, 0])
        raise ModelError(f"{name}: illegal ternary code 3 in row {row}: the file is damaged")
    if (codes[:, k_in:] != 1).any():
        raise ModelError(f"{name}: padding of a row is not zero: the file is damaged")
    return (codes[:, :k_in].astype(np.int8) - 1).astype(np.int8)
