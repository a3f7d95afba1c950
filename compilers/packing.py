"""Weights to the bytes of an artifact: ternary layouts, and the blob that holds every tensor.

The blob (``weights.bin``, or a const array, or a flash partition), little endian:
``magic "TVPRWTS1"; u32 version = 1; u32 layout; u64 total bytes; u32 CRC-32 of all after the
header; u32 zero; 32 bytes model hash``, then the tensors, each at a multiple of 64.
Readers: ``runtime/core/common/model.c`` and, on hosts, :func:`read_header`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.compilers.mcu.layouts import pack_lut4, pack_mcu_cols
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.packing import pack_ternary

MAGIC = b"TVPRWTS1"
VERSION = 1
ALIGN = 64
_HEADER = struct.Struct("<8sIIQII32s")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == ALIGN


class Layout(IntEnum):
    """How ternary weights lie in a blob; the numbers are those of ``tatvpr_ops.h``."""

    ROWS2 = 1
    COLS2 = 2
    TRIT5 = 3
    LUT4 = 4
    MCU_COLS = 5


TRITS_PER_BYTE = 5


def pack_trits(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """[N, K] of -1, 0, +1 to [N, ceil(K/5)]: byte = sum of (w_j + 1) * 3^j, padding is zero."""
    rows, columns = weights.shape
    width = -(-columns // TRITS_PER_BYTE)
    codes = np.ones((rows, width * TRITS_PER_BYTE), dtype=np.uint8)
    codes[:, :columns] = (weights + 1).astype(np.uint8)
    powers = 3 ** np.arange(TRITS_PER_BYTE, dtype=np.uint8)
    grouped = codes.reshape(rows, width, TRITS_PER_BYTE) * powers
    return grouped.sum(axis=2, dtype=np.uint8)


def pack(layout: Layout, weights: NDArray[np.int8]) -> bytes:
    """Ternary ``weights`` [N, K] in ``layout``.

    Raises:
        ModelError: a layout that has no packer.
    """
    packers = {
        Layout.ROWS2: pack_ternary,
        Layout.TRIT5: pack_trits,
        Layout.LUT4: pack_lut4,
        Layout.MCU_COLS: pack_mcu_cols,
    }
    if layout not in packers:
        raise ModelError(f"ternary layout {layout.name} has no packer in compilers/packing.py")
    return packers[layout](weights).tobytes()


@dataclass
class BlobWriter:
    """Collects tensors; ``finish`` gives the bytes."""

    layout: Layout
    #: layout of one ternary matrix by (K, N), where a board's kernels read more than one
    choose: Callable[[int, int], Layout] | None = None
    _parts: list[bytes] = field(default_factory=list)
    _size: int = HEADER_BYTES
    _shared: dict[bytes, int] = field(default_factory=dict)

    def add(self, data: bytes | NDArray[Any]) -> int:
        """Offset of the tensor in the blob; equal contents are stored once."""
        raw = data if isinstance(data, bytes) else _little(data)
        if raw in self._shared:
            return self._shared[raw]
        offset = self._size
        padding = -len(raw) % ALIGN
        self._parts.append(raw + bytes(padding))
        self._size += len(raw) + padding
        self._shared[raw] = offset
        return offset

    def layout_of(self, weights: NDArray[np.int8]) -> Layout:
        """Layout in which ternary ``weights`` [N, K] are stored."""
        n_out, k_in = weights.shape
        return self.layout if self.choose is None else self.choose(k_in, n_out)

    def add_ternary(self, weights: NDArray[np.int8]) -> int:
        """Offset of a ternary matrix; never shared, because a device may repack it in place."""
        raw = pack(self.layout_of(weights), weights)
        self._shared.pop(raw, None)
        return self.add(raw)

    def finish(self, model_hash: bytes) -> bytes:
        """The whole blob."""
        body = b"".join(self._parts)
        header = _HEADER.pack(
            MAGIC, VERSION, self.layout, self._size, zlib.crc32(body), 0, model_hash
        )
        return header + body


def _little(array: NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(array)
    return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
