"""Tiny videos and bags, written by the libraries that robots write them with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


def plain_frames(count: int, width: int = 64, height: int = 48) -> list[U8]:
    """Coloured frames, orange on the left and of a gray that counts on the right."""
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), 10 + 20 * index % 240, np.uint8)
        frame[:, : width // 2] = (250, 130, 10)
        frames.append(frame)
    return frames


def number_of(rgb: U8) -> int:
    """Which of ``plain_frames`` this is."""
    return round((int(rgb[rgb.shape[0] // 2, -4, 1]) - 10) / 20)


def write_video(
    path: Path | Any,
    frames: Sequence[U8],
    rate_hz: int = 10,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    kind: str | None = None,
) -> None:
    """A video of RGB frames; ffv1 in bgr0 keeps every bit."""
    import av

    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for index, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = index, Fraction(1, rate_hz)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
