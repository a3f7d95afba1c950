"""Camera formats to RGB888, in integers; the C core repeats these formulas.

- GRAY8: R = G = B = Y. GRAY10, GRAY12 and GRAY16 are 16-bit words, little endian, of which the
  upper eight of their 10, 12 or 16 bits count; a word above its range is white.
- RGB565, little endian: 5 bits v become (v << 3) | (v >> 2), 6 bits (v << 2) | (v >> 4).
- RGBA and BGRA: the fourth byte is dropped, so RGBx and BGRx are the same.
- YUV422 (bytes Y0 U Y1 V), UYVY (U Y0 V Y1), NV12 (plane Y, then plane U V at half size), NV21
  (V U) and I420 (planes Y, U, V): 16 fractional bits, chroma repeated, not interpolated::

      y = Y - black, d = U - 128, e = V - 128
      R = clip(gain y         + rv e + 32768)
      G = clip(gain y - gu d  - gv e + 32768)
      B = clip(gain y + bu d         + 32768)
      clip(a) = 0 if a < 0 else min(a >> 16, 255)

  BT.601 full range (ITU-T T.871, the equations of JFIF) unless the frame says otherwise; YUV holds
  the numbers of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import FrameError
from .formats import FORMATS
from .values import shown

U8 = NDArray[np.uint8]

#: Pixels a side; keeps every product of the C core within 32 bits.
MAX_SIDE = 32768
_BYTES_PER_PIXEL = {"RGB888": 3, "BGR888": 3, "RGBA": 4, "BGRA": 4, "GRAY8": 1} | dict.fromkeys(
    ("RGB565", "YUV422", "UYVY", "GRAY10", "GRAY12", "GRAY16"), 2
)
_GRAY_BITS = {"GRAY8": 8, "GRAY10": 10, "GRAY12": 12, "GRAY16": 16}
GRAY_FORMATS = frozenset(_GRAY_BITS)
#: Formats with chroma: range and matrix mean something to these alone.
YUV_FORMATS = frozenset(("YUV422", "UYVY", "NV12", "NV21", "I420"))
_HALF_SIZE_CHROMA = frozenset(("NV12", "NV21", "I420"))

#: What else a format is called: V4L2's FourCC, GStreamer, ROS (sensor_msgs), FFmpeg, libcamera.
#: libcamera's and picamera2's "RGB888" is missing on purpose: its bytes are B G R, ours R G B.
_NAMES = {
    "RGB888": "RGB RGB3 RGB24 rgb8",
    "BGR888": "BGR BGR3 BGR24 bgr8",
    "GRAY8": "GREY GRAY MONO8 Y8 8UC1",
    "RGB565": "RGBP RGB16 RGB565LE",
    "YUV422": "YUYV YUY2 YUYV422 yuv422_yuy2",
    "NV12": "NM12",
    "RGBA": "RGBx RGB0 rgba8 AB24 XB24 XBGR8888 ABGR8888",
    "BGRA": "BGRx BGR0 bgra8 AR24 XR24 BGR4 XRGB8888 ARGB8888",
    "UYVY": "UYVY422 yuv422",
    "I420": "YU12 YM12 IYUV YUV420P",
    "NV21": "NM21",
    "GRAY10": "Y10 GRAY10LE GRAY10_LE16",
    "GRAY12": "Y12 GRAY12LE GRAY12_LE16",
    "GRAY16": "Y16 MONO16 16UC1 GRAY16LE GRAY16_LE",
}
ALIASES = {alias: name for name, aliases in _NAMES.items() for alias in aliases.split()}
# Names that mean another format in the other case, so they hold in their own case alone: ROS's
# yuv422 is UYVY, and its rgb16 has 16 bits a channel.
_CASED = frozenset(("yuv422", "rgb16"))
_FOLDED = {
    name.casefold(): meant
    for name, meant in (ALIASES | {name: name for name in FORMATS}).items()
    if name.casefold() not in _CASED
}


class Yuv(NamedTuple):
    """Numbers of one range and matrix (module docstring); all but ``black`` times 65536."""

    black: int
    gain: int
    rv: int
    gu: int
    gv: int
    bu: int


RANGES = ("full", "limited")
MATRICES = ("bt601", "bt709")
#: By (range, matrix): R = Y + 2 (1 - Kr) V and so on, with Kr, Kb of ITU-R BT.601 and BT.709;
#: limited range has Y from 16 to 235 and chroma from 16 to 240.
YUV = {
    ("full", "bt601"): Yuv(0, 65536, 91881, 22554, 46802, 116130),
    ("limited", "bt601"): Yuv(16, 76309, 104597, 25675, 53279, 132201),
    ("full", "bt709"): Yuv(0, 65536, 103206, 12276, 30679, 121609),
    ("limited", "bt709"): Yuv(16, 76309, 117489, 13975, 34925, 138438),
}


def canonical_format(name: str) -> str:
    """The name in FORMATS of a format by any of its names; an unknown name as it is.

    Case does not matter, but for ROS's "yuv422", which is UYVY ("YUV422" is YUYV).
    """
    text = name.strip() if isinstance(name, str) else ""  # FourCCs such as "Y16 " are padded
    if text in FORMATS:
        return text
    return ALIASES.get(text) or _FOLDED.get(text.casefold()) or name


def yuv_code(pixel_format: str, yuv_range: str, yuv_matrix: str) -> int:
    """Field ``yuv`` of the C interface: 1 for limited range, 2 for BT.709, 0 for neither.

    Raises:
        FrameError: an unknown range or matrix, or one for a format that has no chroma.
    """
    for name, value, known in (
        ("yuv_range", yuv_range, RANGES),
        ("yuv_matrix", yuv_matrix, MATRICES),
    ):
        if not isinstance(value, str) or value not in known:
            raise FrameError(f"{name} is {shown(value)}: {' or '.join(known)}")
    code = RANGES.index(yuv_range) + 2 * MATRICES.index(yuv_matrix)
    if code and canonical_format(pixel_format) not in YUV_FORMATS:
        raise FrameError(f"{pixel_format} is no YUV: leave yuv_range and yuv_matrix out")
    return code


def _clip(total: NDArray[np.int32]) -> U8:
    return np.minimum(np.maximum(total, 0) >> 16, 255).astype(np.uint8)


def yuv_to_rgb(y: U8, u: U8, v: U8, by: Yuv = YUV["full", "bt601"]) -> U8:
    """y, u, v uint8 [H, W] -> uint8 [H, W, 3]."""
    base = (y.astype(np.int32) - by.black) * by.gain + 32768
    d, e = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    return np.stack(
        [_clip(base + by.rv * e), _clip(base - by.gu * d - by.gv * e), _clip(base + by.bu * d)],
        axis=-1,
    )


def plane_shapes(pixel_format: str, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes in a row) of each plane of a frame.

    Raises:
        FrameError: unknown format, no or too many pixels, or an odd size where chroma is shared.
    """
    pixel_format = canonical_format(pixel_format)
    if not isinstance(pixel_format, str) or pixel_format not in FORMATS:
        raise FrameError(f"pixel format {shown(pixel_format)} is unknown: {', '.join(FORMATS)}")
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise FrameError(f"the frame's {name} is {shown(value)}: give a whole number of pixels")
        if value < 1:
            raise FrameError(f"a frame of {width} x {height} pixels is empty: no camera made it")
        if value > MAX_SIDE:
            raise FrameError(f"a frame of {width} x {height} pixels: at most {MAX_SIDE} a side")
    if pixel_format in YUV_FORMATS and width % 2:
        raise FrameError(f"{pixel_format} frames have an even width, not {width}")
    if pixel_format in _HALF_SIZE_CHROMA:
        if height % 2:
            raise FrameError(f"{pixel_format} frames have an even height, not {height}")
        if pixel_format == "I420":
            return [(height, width), *[(height // 2, width // 2)] * 2]
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
    if not isinstance(planes, (tuple, list)):
        raise FrameError(f"planes are a tuple of NumPy arrays, not {shown(planes)}")
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


def to_rgb(
    planes: Sequence[U8],
    pixel_format: str,
    width: int,
    height: int,
    yuv_range: str = "full",
    yuv_matrix: str = "bt601",
) -> U8:
    """RGB888 [height, width, 3] from the planes of a camera frame.

    Raises:
        FrameError: as :func:`check_planes` and :func:`yuv_code`.
    """
    pixel_format = canonical_format(pixel_format)
    parts = check_planes(planes, pixel_format, width, height)
    yuv_code(pixel_format, yuv_range, yuv_matrix)
    if pixel_format in YUV_FORMATS:
        return yuv_to_rgb(*_yuv_planes(parts, pixel_format), YUV[yuv_range, yuv_matrix])
    if pixel_format in GRAY_FORMATS:
        return np.repeat(_gray(parts[0], _GRAY_BITS[pixel_format])[:, :, None], 3, axis=2)
    if pixel_format == "RGB565":
        return _rgb565(parts[0])
    channels = _BYTES_PER_PIXEL[pixel_format]
    pixels = parts[0].reshape(height, width, channels)[:, :, :3]
    return np.ascontiguousarray(pixels[:, :, ::-1] if pixel_format.startswith("BGR") else pixels)


def _words(row: U8) -> NDArray[np.uint16]:
    return np.ascontiguousarray(row).view("<u2").astype(np.uint16, copy=False)


def _gray(row: U8, bits: int) -> U8:
    if bits == 8:
        return row
    return (np.minimum(_words(row), (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)


def _rgb565(row: U8) -> U8:
    value = _words(row)
    red, green, blue = value >> 11, (value >> 5) & 63, value & 31
    channels = [(red << 3) | (red >> 2), (green << 2) | (green >> 4), (blue << 3) | (blue >> 2)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _yuv_planes(parts: list[U8], pixel_format: str) -> tuple[U8, U8, U8]:
    """Y, U and V, each [H, W]."""
    row = parts[0]
    if pixel_format in ("YUV422", "UYVY"):
        luma = 0 if pixel_format == "YUV422" else 1
        u, v = row[:, 1 - luma :: 4], row[:, 3 - luma :: 4]
        return row[:, luma::2], np.repeat(u, 2, axis=1), np.repeat(v, 2, axis=1)
    if pixel_format == "I420":
        u, v = parts[1], parts[2]
    else:
        swapped = pixel_format == "NV21"
        u, v = parts[1][:, swapped::2], parts[1][:, not swapped :: 2]
    spread = [np.repeat(np.repeat(chroma, 2, axis=0), 2, axis=1) for chroma in (u, v)]
    return row, spread[0], spread[1]
