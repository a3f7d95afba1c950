"""Whether a frame shows anything: a black, blank or covered lens is no place.

In: a checked frame. Out: None, or the reason why its answer must not be taken. A model answers
such frames like any other, and with scores as high, so that no threshold of a score tells them.

The frame's brightness is averaged over 16 x 16 cells, which takes noise away, and a smooth
surface (a polynomial of degree 4) is taken out of them, which takes vignetting and the glow around
a finger away. What is left is structure. Called by ``Localizer.query``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import CameraFrame

#: Cells along each side, and samples of each along each side.
_CELLS, _SAMPLES = 16, 8
_DEGREE = 4
#: Of a row of the first plane: bytes from pixel to pixel, and where in one its luma or green is.
_BYTES = {
    "RGB888": (3, 1),
    "BGR888": (3, 1),
    "RGBA": (4, 1),
    "BGRA": (4, 1),
    "YUV422": (2, 0),
    "UYVY": (2, 1),
    "GRAY8": (1, 0),
    "NV12": (1, 0),
    "NV21": (1, 0),
    "I420": (1, 0),
}
#: Words of two bytes: how far down their upper eight bits lie.
_WORDS = {"GRAY10": 2, "GRAY12": 4, "GRAY16": 8}
#: Gray levels (root mean square over cells) below which nothing is seen. Of 574 frames of a
#: tower's corridors and stairs one has 0.4, the next 5.4; of the rendered ones that are shipped the
#: plainest has 3.8. A covered lens with noise of 16 levels and a glow of 60 has 2.5.
LEAST_STRUCTURE = 3.0


def without_structure(frame: CameraFrame) -> str | None:
    """Why ``frame`` is no picture of a place; None: it may be one."""
    found = structure(frame)
    if found >= LEAST_STRUCTURE:
        return None
    return (
        f"the frame shows no structure ({found:.1f} gray levels, {LEAST_STRUCTURE:g} are needed): "
        "blank, black or a covered lens"
    )


def structure(frame: CameraFrame) -> float:
    """Gray levels of structure: root mean square over the cells."""
    side = _CELLS * _SAMPLES
    rows = _spread(frame.height, side)
    columns = _spread(frame.width, side)
    levels = _brightness(frame, rows, columns).reshape(_CELLS, _SAMPLES, side)
    across = levels.sum(axis=1, dtype=np.uint16).reshape(_CELLS, _CELLS, _SAMPLES)
    cells = across.sum(axis=2, dtype=np.uint16).reshape(-1).astype(np.float32)
    cells /= _SAMPLES * _SAMPLES
    left = cells - _SMOOTH @ (_SMOOTH.T @ cells)
    return float(np.sqrt(np.mean(left * left)))


def _spread(size: int, count: int) -> NDArray[np.intp]:
    """``count`` indices, evenly over 0 .. size - 1; small frames repeat some."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.intp)


def _brightness(
    frame: CameraFrame, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.uint8]:
    """uint8 [rows, columns]: luma where the format has it, else green."""
    lines: NDArray[np.uint8] = frame.planes[0][rows]
    pixel_format = frame.pixel_format
    if pixel_format in _WORDS:
        low, high = lines.take(2 * columns, axis=1), lines.take(2 * columns + 1, axis=1)
        word = low.astype(np.uint16) | (high.astype(np.uint16) << 8)
        return ((word >> _WORDS[pixel_format]) & 255).astype(np.uint8)
    if pixel_format == "RGB565":
        low, high = lines.take(2 * columns, axis=1), lines.take(2 * columns + 1, axis=1)
        return (((high & 7) << 5) | ((low >> 5) << 2)).astype(np.uint8)
    step, first = _BYTES[pixel_format]
    return lines.take(step * columns + first, axis=1)


def _smooth_surfaces() -> NDArray[np.float32]:
    """Orthonormal columns that span x^i y^j, i + j <= 4, over the cells: float32 [256, 15]."""
    at = np.linspace(-1, 1, _CELLS)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(at, at, indexing="ij"))
    columns = [x**i * y**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    return np.linalg.qr(np.stack(columns, axis=1))[0].astype(np.float32)


_SMOOTH = _smooth_surfaces()
