"""Gray pictures in every format that cameras send."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def in_format(luma: U8, pixel_format: str) -> tuple[U8, ...]:
    """The planes of a gray picture of even sides, uint8 [H, W], as a camera would send it."""
    height, width = luma.shape
    chroma = np.full((height // 2, width), 128, np.uint8)
    pairs = np.full((height, width, 2), 128, np.uint8)
    if pixel_format in ("YUV422", "UYVY"):
        pairs[:, :, int(pixel_format == "UYVY")] = luma
        return (pairs.reshape(height, -1),)
    words = {"RGB565": 0, "GRAY10": 2, "GRAY12": 4, "GRAY16": 8}
    if pixel_format in words:
        wide = luma.astype(np.uint16)
        word = (wide >> 2) << 5 if pixel_format == "RGB565" else wide << words[pixel_format]
        return (word.astype("<u2").view(np.uint8).reshape(height, -1),)
    half = chroma[:, : width // 2]
    planes = {"NV12": (luma, chroma), "NV21": (luma, chroma), "I420": (luma, half, half)}
    if pixel_format in planes:
        return planes[pixel_format]
    channels = {"GRAY8": 1, "RGB888": 3, "BGR888": 3, "RGBA": 4, "BGRA": 4}[pixel_format]
    return (np.repeat(luma, channels, axis=1),)
