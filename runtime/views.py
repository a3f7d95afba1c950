"""A place from several views: what a map keeps of one frame, so that more queries find it.

A map is made once and asked a million times, so that a place may cost what a query may not. Its
descriptor is the mean of those of the frame itself, of its four corners and of the frame in gray:
a robot that comes back a step aside, turned, or with another camera meets the mean more often than
the one view. A query is described as ever, from its frame alone, and costs no more.

In: a frame. Out: its views, or their one descriptor. NumPy alone, as a board has it. Called by
``mapping`` for every place, by ``MapWriter(views=True)``, and by evaluation for its maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame, check_frame, rgb_of

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
#: Side of a corner's view, of the frame's.
CORNER = 0.85
#: How often each view counts: the frame itself, its four corners, the frame in gray. Chosen on
#: rendered places, panoramas, drone frames and training floors (docs/training-log.md).
WEIGHTS = (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)
# Parts of 256: luma of BT.601, as "gray" means it everywhere else.
_LUMA = np.array([77, 150, 29], np.uint16)


def views_of(rgb: U8) -> list[U8]:
    """The views of ``rgb`` uint8 [H, W, 3], in the order of ``WEIGHTS``."""
    height, width = rgb.shape[:2]
    rows, columns = max(1, round(height * CORNER)), max(1, round(width * CORNER))
    corners = [
        np.ascontiguousarray(rgb[down : down + rows, right : right + columns])
        for down in (0, height - rows)
        for right in (0, width - columns)
    ]
    gray = ((rgb @ _LUMA) >> 8).astype(np.uint8)
    return [rgb, *corners, np.repeat(gray[:, :, None], 3, axis=2)]


def mean_view(descriptors: Sequence[F32]) -> F32:
    """One descriptor of unit length from those of the views, float32 [..., D] each."""
    total = sum(w * row for w, row in zip(WEIGHTS, descriptors, strict=True))
    rows = np.asarray(total, np.float32)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    # Views that cancel each other out are no place; the frame itself is.
    return np.where(length > 0, rows / np.where(length > 0, length, 1), descriptors[0])


def describe_place(
    describe: Callable[[CameraFrame, float, float], F32],
    frame: CameraFrame,
    bands: Sequence[tuple[float, float]],
) -> list[F32]:
    """The descriptor of a place, float32 [D], for each (k, tokens) of ``bands``.

    Args:
        describe: makes the descriptor of a frame at (k, tokens).
    """
    views = [frame, *(check_frame(view) for view in views_of(rgb_of(frame))[1:])]
    return [mean_view([describe(view, k, tokens) for view in views]) for k, tokens in bands]
