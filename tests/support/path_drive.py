"""A drive with odometry and dark frames, and what every CPU says of it."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.maptypes import MOMENT

PLACES, FRAMES, STEPS = 300, 5, 40
ELSEWHERE_M, THRESHOLD = 3.0, 0.0
WEIGHTS = (-2.0, 1.5, 6.0, 0.5, 3.0, 0.1)
#: tatvpr_tracked.
TRACKED = np.dtype(
    [
        ("size", "<u4"),
        ("state", "<u4"),
        ("place", "<u8"),
        ("seen", "<u4"),
        ("steady", "<u4"),
        ("evidence", "<f4"),
        ("margin", "<f4"),
        ("still", "<f4"),
        ("still_margin", "<f4"),
        ("confidence", "<f4"),
        ("accepted", "<i4"),
        ("pose", "<f8", 7),
    ]
)
#: TATVPR_TRACK_TURNS.
TURNS = 2
#: :func:`sum_of` what x86-64 said, with metres, and with turns.
CRC, CRC_OF_TURNS = 649423347, 3021290089


def drive(turning: bool = False) -> tuple[NDArray[np.generic], ...]:
    """(scores [steps, places], which frames show something [steps], metres moved [steps],
    moments [places], poses [places, 7]); ``turning``: of which orientations are known."""
    rng = np.random.default_rng(3)
    moments, poses = np.zeros(PLACES, MOMENT), np.zeros((PLACES, 7))
    moments["drive"], moments["known"] = np.arange(PLACES) // 120, 3
    poses[:, :2] = np.cumsum(rng.uniform(-2, 2, (PLACES, 2)), axis=0)
    scores = rng.uniform(-1, 1, (STEPS, PLACES)).astype(np.float32)
    shown = (rng.random(STEPS) < 0.9).astype(np.uint8)
    moved = rng.uniform(-5, 5, STEPS).astype(np.float32)
    if turning:
        moments["known"] = 0x7B
        poses[:, 3:] = rng.normal(0, 1, (PLACES, 4))
        poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    return scores, shown, moved, moments, poses


def turned() -> NDArray[np.float32]:
    """Radians turned [steps]; NaN: not known."""
    rng = np.random.default_rng(8)
    turns = rng.normal(0, 1.5, STEPS).astype(np.float32)
    turns[rng.random(STEPS) < 0.2] = np.nan
    return turns


def sum_of(raw: bytes) -> int:
    """A checksum of all that TRACKED [steps] says."""
    told = np.frombuffer(raw, TRACKED)
    names = ("place", "evidence", "margin", "still", "still_margin", "confidence", "accepted")
    return zlib.crc32(b"".join(np.nan_to_num(told[name]).tobytes() for name in names))
