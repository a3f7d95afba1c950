"""Frames along a wall that nobody photographed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def walk(count: int, seed: int) -> NDArray[np.uint8]:
    """Frames uint8 [count, 64, 96, 3] along a wall of blobs: neighbours share most of it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, count + 8, 3), np.uint8)
    wall = Image.fromarray(coarse).resize(((count + 8) * 16, 64), Image.Resampling.BILINEAR)
    pixels = np.asarray(wall)
    return np.stack([pixels[:, 16 * i : 16 * i + 96] for i in range(count)])
