"""Frames as a camera or a decoder gives them, checked before any pointer leaves Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.frames import (
    GRAY_FORMATS,
    canonical_format,
    check_planes,
    plane_shapes,
    to_rgb,
    yuv_code,
)
from tatvpr_edge.spec.resize import squash
from tatvpr_edge.spec.values import flag, shown

if TYPE_CHECKING:
    from tatvpr_edge.spec.artifact import Artifact
    from tatvpr_edge.spec.manifest import GoldenFrame

U8 = NDArray[np.uint8]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraFrame:
    """A frame in a camera's own format, for ``Localizer.query`` and ``describe``.

    Attributes:
        planes: uint8 arrays [rows, bytes in a row]; NV12 and NV21 have two (Y, interleaved chroma),
            I420 three (Y, U, V), others one.
        pixel_format: a name in ``spec.frames.FORMATS``, or what V4L2, GStreamer or ROS call it
            (``ALIASES``): "NV12", "YUYV", "UYVY", "bgra8", "mono16" ...
        width, height: pixels.
        yuv_range: "full" (luma 0..255) or "limited" (16..235, as video has it); YUV formats alone.
        yuv_matrix: "bt601" or "bt709" (most HD cameras that say "limited").
    """

    planes: tuple[U8, ...]
    pixel_format: str
    width: int
    height: int
    yuv_range: str = "full"
    yuv_matrix: str = "bt601"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixel_format", canonical_format(self.pixel_format))

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | NDArray[np.uint16], pixel_format: str) -> CameraFrame:
        """A frame of one plane from pixels as NumPy holds them.

        Args:
            pixels: uint8 [H, W, 3 or 4], uint8 [H, W], or uint16 [H, W] for more than 8 bits.
            pixel_format: RGBA, BGRA, RGB888, BGR888, GRAY8, GRAY10, GRAY12, GRAY16, or an alias.

        Raises:
            FrameError: the pixels have another shape or type than that format.
        """
        name = canonical_format(pixel_format)
        if not isinstance(pixels, np.ndarray):
            raise FrameError(f"pixels are a NumPy array, not {shown(pixels)}")
        kind, channels = _ARRAYS.get(name, (None, 0)) if isinstance(name, str) else (None, 0)
        if kind is None:
            raise FrameError(
                f"{shown(pixel_format)} is no array of pixels: one of {', '.join(_ARRAYS)}"
            )
        shaped = pixels.ndim == 2 if channels == 1 else pixels.shape[2:] == (channels,)
        if not shaped or pixels.dtype.newbyteorder("=") != kind:  # cameras send either order
            expected = "[H, W]" if channels == 1 else f"[H, W, {channels}]"
            raise FrameError(
                f"pixels of shape {pixels.shape} and {pixels.dtype}: {name} is {kind} {expected}"
            )
        height, width = pixels.shape[:2]
        plane_shapes(name, width, height)
        little = np.ascontiguousarray(pixels, dtype=np.dtype(kind).newbyteorder("<"))
        return cls((little.reshape(height, -1).view(np.uint8),), name, width, height)


# dtype and channels of formats that are an array of pixels
_ARRAYS = {
    "RGBA": ("uint8", 4),
    "BGRA": ("uint8", 4),
    "RGB888": ("uint8", 3),
    "BGR888": ("uint8", 3),
    "GRAY8": ("uint8", 1),
    "GRAY10": ("uint16", 1),
    "GRAY12": ("uint16", 1),
    "GRAY16": ("uint16", 1),
}
Frame = U8 | CameraFrame  # what query and describe take


def check_frame(frame: Any, bgr: bool = False) -> CameraFrame:
    """``frame`` as a :class:`CameraFrame`.

    Args:
        frame: uint8 [H, W, 3], uint8 [H, W] (gray), or a CameraFrame; on the GPU as well, by
            ``__cuda_array_interface__``.
        bgr: the three channels are blue, green, red (OpenCV's order).

    Raises:
        FrameError: another type, shape or size; the text says what to do.
        ToolError: the frame lies on a GPU that cannot be reached.
    """
    flag(bgr, "bgr")
    if isinstance(frame, CameraFrame):
        _check_planes(frame)
        return frame
    if hasattr(frame, "__cuda_array_interface__"):
        from tatvpr_edge.runtime.cuda.arrays import host_copy

        frame = host_copy(frame)
    if not isinstance(frame, np.ndarray):
        raise FrameError(
            f"a frame is a NumPy array uint8 [height, width, 3], not {type(frame).__name__}: use "
            "tatvpr_edge.read_frame(image) for a file or Pillow image (upright, in RGB whatever "
            "its mode), numpy.asarray for other arrays"
        )
    if frame.dtype == np.uint16 and frame.ndim == 2:
        raise FrameError(
            "a frame holds uint8 values 0..255, not uint16: use CameraFrame.of(frame, 'GRAY16'), "
            "or GRAY12 or GRAY10 where the camera has fewer bits"
        )
    if frame.dtype != np.uint8:
        raise FrameError(
            f"a frame holds uint8 values 0..255, not {frame.dtype}: scale it and use "
            ".astype(numpy.uint8)"
        )
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        remedy = (
            "say which order the four channels have: CameraFrame.of(frame, 'RGBA'), or 'BGRA' "
            "from OpenCV and most cameras"
            if frame.shape[2:] == (4,)
            else ("expected [height, width, 3], or [height, width] for gray")
        )
        raise FrameError(f"a frame of shape {frame.shape}: {remedy}")
    height, width = frame.shape[:2]
    pixel_format = "GRAY8" if frame.ndim == 2 else ("BGR888" if bgr else "RGB888")
    plane_shapes(pixel_format, width, height)
    row_bytes = width * (1 if frame.ndim == 2 else 3)
    packed = frame.strides[1:] == ((1,) if frame.ndim == 2 else (3, 1))
    # Rows stay where they are: a crop or a flipped frame is not copied, one whose rows overlap is.
    if not packed or (height > 1 and abs(frame.strides[0]) < row_bytes):
        frame = np.ascontiguousarray(frame)
    plane = np.lib.stride_tricks.as_strided(
        frame, (height, row_bytes), (frame.strides[0], 1), writeable=False
    )
    return CameraFrame((plane,), pixel_format, width, height)


class GrayNote:
    """Tells once that frames without colour meet a map: the model has learned colour."""

    def __init__(self) -> None:
        self._seen = False

    def __call__(self, frame: CameraFrame) -> None:
        """Look at the first frame; a camera does not change afterwards."""
        if self._seen:
            return
        self._seen = True
        if _colourless(frame):
            _LOG.warning(
                "frames of this camera are gray, and the model has learned from colour: on a map "
                "made from colour frames fewer places are found. Make the map with this camera, "
                "and compare with 'tatvpr-edge evaluate MAP QUERIES'"
            )


def _colourless(frame: CameraFrame) -> bool:
    """Gray by format, or by three equal channels in every pixel looked at (one in 64)."""
    if frame.pixel_format in GRAY_FORMATS:
        return True
    if frame.pixel_format not in ("RGB888", "BGR888"):
        return False
    rows = frame.planes[0][: frame.height : 8, : frame.width * 3]
    pixels = rows.reshape(rows.shape[0], frame.width, 3)[:, ::8]
    # One flat colour (a lens cap, a test frame) says nothing about the camera.
    return bool((pixels == pixels[:, :, :1]).all() and np.ptp(pixels) > 0)


def golden_pixels(artifact: Artifact, frame: GoldenFrame) -> U8:
    """A frame that an artifact carries for its golden vectors, uint8 [H, W, 3], RGB."""
    return np.frombuffer(artifact.read(frame.path), np.uint8).reshape(frame.height, frame.width, 3)


def rgb_of(frame: CameraFrame) -> U8:
    """The pixels of ``frame``, uint8 [H, W, 3], RGB, by the NumPy reference."""
    return to_rgb(
        frame.planes,
        frame.pixel_format,
        frame.width,
        frame.height,
        frame.yuv_range,
        frame.yuv_matrix,
    )


def squashed(frame: CameraFrame, size: int) -> CameraFrame:
    """``frame`` as the model's square, by the NumPy reference: same bytes as the C core's."""
    pixels = squash(rgb_of(frame), size)
    return CameraFrame((pixels.reshape(size, size * 3),), "RGB888", size, size)


def _check_planes(frame: CameraFrame) -> None:
    parts = check_planes(frame.planes, frame.pixel_format, frame.width, frame.height)
    yuv_code(frame.pixel_format, frame.yuv_range, frame.yuv_matrix)
    for index, plane in enumerate(parts):
        if plane.shape[1] > 1 and plane.strides[1] != 1:
            raise FrameError(f"the bytes of a row of plane {index} are not neighbours: copy it")
