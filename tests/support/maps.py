"""Bytes of place maps, for tests and fuzz targets."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.placemap import Band, MapInfo

F32 = NDArray[np.float32]


def reseal(data: bytes | bytearray) -> bytes:
    """Both checksums of a map made right again, so that the checks behind them are reached."""
    made = bytearray(data)
    if len(made) >= 192:
        header_bytes = min(struct.unpack_from("<I", made, 12)[0], len(made))
        made[184:188] = struct.pack("<I", zlib.crc32(bytes(made[header_bytes:])))
        made[188:192] = bytes(4)
        made[188:192] = struct.pack("<I", zlib.crc32(bytes(made[:header_bytes])))
    return bytes(made)


def directions(count: int, size: int, seed: int = 0) -> F32:
    """Descriptors of length one, float32 [count, size]."""
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    unit: F32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def info_of(kind: str, model: str = "ab" * 32) -> MapInfo:
    """Of a small map with two bands."""
    return MapInfo(model, kind, 16, (Band(1.0), Band(0.2, 0.5)), "local")
