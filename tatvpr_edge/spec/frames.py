"""Camera formats to RGB888, in integers; the C core repeats these formulas.

- GRAY8: R = G = B = Y.
- RGB565, little endian: 5 bits v become (v << 3) | (v >> 2), 6 bits (v << 2) | (v >> 4).
- YUV422 (bytes Y0 U Y1 V) and NV12 (plane Y, then plane U V at half size): BT.601 full range
  (ITU-T T.871, the equations of JFIF) with 16 fractional bits, chroma repeated, not interpolated::

      d = U - 128, e = V - 128
      R = clip(65536 Y             + 91881 e + 32768)
      G = clip(65536 Y -  22554 d  - 46802 e + 32768)
      B = clip(65536 Y + 116130 d            + 32768)
      clip(a) = 0 if a < 0 else min(a >> 16, 255)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import FrameError

U8 = NDArray[np.uint8]

#: Pixels a side; keeps every product of the C core within 32 bits.
MAX_SIDE = 32768
_BYTES_PER_PIXEL = {"RGB888": 3, "BGR888": 3, "GRAY8": 1, "RGB565": 2, "YUV422": 2}
#: Formats by name, as in ``enum tatvpr_format`` of the C interface.
FORMATS = {"RGB888": 1, "BGR888": 2, "GRAY8": 3, "RGB565": 4, "YUV422": 5, "NV12": 6}


def _clip(total: NDArray[np.int32]) -> U8:
    return np.minimum(np.maximum(total, 0) >> 16, 255).astype(np.uint8)


def yuv_to_rgb(y: U8, u: U8, v: U8) -> U8:
    """BT.601 full range: y, u, v uint8 [H, W] -> uint8 [H, W, 3]."""
    base = y.astype(np.int32) * 65536 + 32768
    d, e = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    return np.stack(
        [_clip(base + 91881 * e), _clip(base - 22554 * d - 46802 * e), _clip(base + 116130 * d)],
        axis=-1,
    )


def plane_shapes(pixel_format: str, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes in a row) of each plane of a frame.

    Raises:
        FrameError: unknown format, no or too many pixels, or an odd size where chroma is shared.
    """
    if pixel_format not in FORMATS:
        raise FrameError(f"pixel format {pixel_format!r} is unknown: {', '.join(FORMATS)}")
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise FrameError(f"the frame's {name} is {value!r}: give a whole number of pixels")
        if value < 1:
            raise FrameError(f"a frame of {width} x {height} pixels is empty: no camera made it")
        if value > MAX_SIDE:
            raise FrameError(f"a frame of {width} x {height} pixels: at most {MAX_SIDE} a side")
    if pixel_format in ("YUV422", "NV12") and width % 2:
        raise FrameError(f"{pixel_format} frames have an even width, not {width}")
    if pixel_format == "NV12":
        if height % 2:
            raise FrameError(f"NV12 frames have an even height, not {height}")
        return [(height, width), (height // 2, width)]
    return [(height, width * _BYTES_PER_PIXEL[pixel_format])]


def check_planes(planes: Sequence[U8], pixel_format: str, width: int, height: int) -> list[U8]:
    """The planes cut to what the pixels need (views).

    Args:
        planes: uint8 arrays [rows, bytes in a row]; rows may be longer than the pixels need.

    Raises:
        FrameError: as :func:`plane_shapes`, or a plane is missing, short or of another type.
    """
    needed = plane_shapes(pixel_format, width, height)
    if len(planes) < len(needed):
        raise FrameError(f"{pixel_format} needs {len(needed)} planes, not {len(planes)}")
    parts = []
    for index, (rows, columns) in enumerate(needed):
        plane = planes[index]
        if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8 or plane.ndim != 2:
            raise FrameError(f"plane {index} must be a NumPy array uint8 [rows, bytes in a row]")
        if plane.shape[0] < rows or plane.shape[1] < columns:
            raise FrameError(
                f"plane {index} is {plane.shape[0]} x {plane.shape[1]} bytes: "
                f"{pixel_format} at {width} x {height} needs {rows} x {columns}"
            )
        parts.append(plane[:rows, :columns])
    return parts


def to_rgb(planes: Sequence[U8], pixel_format: str, width: int, height: int) -> U8:
    """RGB888 [height, width, 3] from the planes of a camera frame.

    Raises:
        FrameError: as :func:`check_planes`.
    """
    parts = check_planes(planes, pixel_format, width, height)
    return _CONVERT[pixel_format](parts)


def _rgb888(parts: list[U8]) -> U8:
    return np.ascontiguousarray(parts[0].reshape(parts[0].shape[0], -1, 3))


def _bgr888(parts: list[U8]) -> U8:
    return np.ascontiguousarray(_rgb888(parts)[:, :, ::-1])


def _gray8(parts: list[U8]) -> U8:
    return np.repeat(parts[0][:, :, None], 3, axis=2)


def _rgb565(parts: list[U8]) -> U8:
    value = parts[0][:, 0::2].astype(np.uint16) | (parts[0][:, 1::2].astype(np.uint16) << 8)
    red, green, blue = value >> 11, (value >> 5) & 63, value & 31
    channels = [(red << 3) | (red >> 2), (green << 2) | (green >> 4), (blue << 3) | (blue >> 2)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _yuv422(parts: list[U8]) -> U8:
    row = parts[0]
    u, v = np.repeat(row[:, 1::4], 2, axis=1), np.repeat(row[:, 3::4], 2, axis=1)
    return yuv_to_rgb(row[:, 0::2], u, v)


def _nv12(parts: list[U8]) -> U8:
    chroma = np.repeat(parts[1], 2, axis=0)
    u, v = np.repeat(chroma[:, 0::2], 2, axis=1), np.repeat(chroma[:, 1::2], 2, axis=1)
    return yuv_to_rgb(parts[0], u, v)


_CONVERT = {
    "RGB888": _rgb888,
    "BGR888": _bgr888,
    "GRAY8": _gray8,
    "RGB565": _rgb565,
    "YUV422": _yuv422,
    "NV12": _nv12,
}
