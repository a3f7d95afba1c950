"""Ternary weights as the microcontroller kernels read them (``runtime/core/mcu/mcu.h``).

Both layouts spend one byte on four weights: a number of base 3, ``sum (w_i + 1) * 3^i``, which
indexes a table of the 81 possible combinations without holes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]

WEIGHTS_PER_BYTE = 4
CHANNELS_PER_WORD = 16
COLUMN_OUTPUTS = 12
_POWERS = np.array([1, 3, 9, 27], dtype=np.uint8)


def _base3(codes: U8) -> U8:
    """Codes 0..2 [..., 4] to bytes [...]."""
    return (codes * _POWERS).sum(axis=-1, dtype=np.uint8)


def _padded_codes(weights: I8, rows: int, columns: int) -> U8:
    """``w + 1`` in a [rows, columns] array whose padding is the weight zero."""
    codes = np.ones((rows, columns), dtype=np.uint8)
    codes[: weights.shape[0], : weights.shape[1]] = (weights.astype(np.int16) + 1).astype(np.uint8)
    return codes


def pack_lut4(weights: I8) -> U8:
    """``weights`` [N, K] of -1, 0, +1 to bytes [N, 4 * ceil(K / 16)]: four channels a byte."""
    n_out, k_in = weights.shape
    columns = -(-k_in // CHANNELS_PER_WORD) * CHANNELS_PER_WORD
    codes = _padded_codes(weights, n_out, columns)
    return _base3(codes.reshape(n_out, -1, WEIGHTS_PER_BYTE))


def pack_mcu_cols(weights: I8) -> U8:
    """``weights`` [N, K] to bytes [ceil(N / 12), K, 3]: four outputs of one channel a byte."""
    n_out, k_in = weights.shape
    tiles = -(-n_out // COLUMN_OUTPUTS)
    codes = _padded_codes(weights, tiles * COLUMN_OUTPUTS, k_in)
    grouped = codes.reshape(tiles, COLUMN_OUTPUTS // WEIGHTS_PER_BYTE, WEIGHTS_PER_BYTE, k_in)
    return _base3(grouped.transpose(0, 3, 1, 2))
