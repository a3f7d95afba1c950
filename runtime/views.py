"""A place from several views: what a map keeps of one frame, so that more queries find it.

A map is made once and asked a million times, so that a place may cost what a query may not. Its
descriptor is the mean of those of the frame itself, at the map's dials and at two lower settings,
of its four corners and of the frame in gray: a robot that comes back a step aside, turned, with
another camera or with less power meets the mean more often than the one view. A query is described
as ever, from its frame alone, and costs no more.

In: a frame. Out: its views, or their one descriptor. NumPy alone, as a board has it. Called by
``mapping`` for every place, by ``MapWriter(views=True)``, and by evaluation for its maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame, check_frame, rgb_of

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
View = TypeVar("View")
#: Side of a corner's view, of the frame's.
CORNER = 0.85
#: (k, tokens) at which the frame itself counts as well, where the map's dials are not lower. These
#: and the other views, which all count the same, were chosen on rendered places, panoramas, drone
#: frames and training floors (docs/training-log.md).
LOWER = ((0.2, 1.0), (0.4, 0.5))
# Parts of 256: luma of BT.601, as "gray" means it everywhere else.
_LUMA = np.array([77, 150, 29], np.uint16)


def views_of(rgb: U8) -> list[U8]:
    """The views of ``rgb`` uint8 [H, W, 3]: the frame, its four corners, the frame in gray."""
    height, width = rgb.shape[:2]
    rows, columns = max(1, round(height * CORNER)), max(1, round(width * CORNER))
    corners = [
        np.ascontiguousarray(rgb[down : down + rows, right : right + columns])
        for down in (0, height - rows)
        for right in (0, width - columns)
    ]
    gray = ((rgb @ _LUMA) >> 8).astype(np.uint8)
    return [rgb, *corners, np.repeat(gray[:, :, None], 3, axis=2)]


def lower_settings(k: float, tokens: float, lowest_k: float) -> list[tuple[float, float]]:
    """``LOWER`` for a map at (k, tokens): never above its dials, nor below ``lowest_k``."""
    return [(max(min(k, low), lowest_k), min(tokens, fewer)) for low, fewer in LOWER]


def mean_view(descriptors: Sequence[F32]) -> F32:
    """One descriptor of unit length from those of the views, float32 [..., D] each."""
    rows = np.asarray(sum(descriptors), np.float32)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    # Views that cancel each other out are no place; the frame itself is.
    return np.where(length > 0, rows / np.where(length > 0, length, 1), descriptors[0])


def place_of_views(
    describe: Callable[[View, float, float], F32],
    views: Sequence[View],
    k: float,
    tokens: float,
    lowest_k: float,
) -> F32:
    """The descriptor of a place at (k, tokens), float32 [..., D], from its ``views``, the frame
    itself first: frames, or as many frames of many places.

    Args:
        describe: makes descriptors at (k, tokens).
        lowest_k: the least that it takes.
    """
    lower = [describe(views[0], *dials) for dials in lower_settings(k, tokens, lowest_k)]
    return mean_view([*(describe(view, k, tokens) for view in views), *lower])


def describe_place(
    describe: Callable[[CameraFrame, float, float], F32],
    frame: CameraFrame,
    bands: Sequence[tuple[float, float]],
    lowest_k: float,
) -> list[F32]:
    """The descriptor of a place, float32 [D], for each (k, tokens) of ``bands``.

    Args:
        describe, lowest_k: as of :func:`place_of_views`.
    """
    views = [frame, *(check_frame(view) for view in views_of(rgb_of(frame))[1:])]
    return [place_of_views(describe, views, k, tokens, lowest_k) for k, tokens in bands]
