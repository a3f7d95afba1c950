"""Frames as a camera or a decoder gives them, checked before any pointer leaves Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.frames import check_planes, plane_shapes, to_rgb
from tatvpr_edge.spec.resize import squash

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class CameraFrame:
    """A frame in a camera's own format, for ``Localizer.query`` and ``describe``.

    Attributes:
        planes: uint8 arrays [rows, bytes in a row]; NV12 has two (Y, interleaved UV), others one.
        pixel_format: RGB888, BGR888, GRAY8, RGB565, YUV422 (YUYV) or NV12.
        width, height: pixels.
    """

    planes: tuple[U8, ...]
    pixel_format: str
    width: int
    height: int


Frame = U8 | CameraFrame  # what query and describe take


def check_frame(frame: Any, bgr: bool = False) -> CameraFrame:
    """``frame`` as a :class:`CameraFrame`.

    Args:
        frame: uint8 [H, W, 3], uint8 [H, W] (gray), or a CameraFrame.
        bgr: the three channels are blue, green, red (OpenCV's order).

    Raises:
        FrameError: another type, shape or size; the text says what to do.
    """
    if isinstance(frame, CameraFrame):
        _check_planes(frame)
        return frame
    if not isinstance(frame, np.ndarray):
        raise FrameError(
            f"a frame is a NumPy array uint8 [height, width, 3], not {type(frame).__name__}: "
            "use numpy.asarray(image)"
        )
    if frame.dtype != np.uint8:
        raise FrameError(
            f"a frame holds uint8 values 0..255, not {frame.dtype}: scale it and use "
            ".astype(numpy.uint8)"
        )
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        remedy = (
            "drop the alpha channel with frame[:, :, :3]"
            if frame.shape[2:] == (4,)
            else ("expected [height, width, 3], or [height, width] for gray")
        )
        raise FrameError(f"a frame of shape {frame.shape}: {remedy}")
    height, width = frame.shape[:2]
    pixel_format = "GRAY8" if frame.ndim == 2 else ("BGR888" if bgr else "RGB888")
    plane_shapes(pixel_format, width, height)
    packed = frame.strides[1:] == ((1,) if frame.ndim == 2 else (3, 1))
    if not packed:
        frame = np.ascontiguousarray(frame)
    # Rows stay where they are, whatever their distance: a crop or a flipped frame is not copied.
    row = frame.strides[0]
    plane = np.lib.stride_tricks.as_strided(
        frame, (height, width * (1 if frame.ndim == 2 else 3)), (row, 1), writeable=False
    )
    return CameraFrame((plane,), pixel_format, width, height)


def squashed(frame: CameraFrame, size: int) -> CameraFrame:
    """``frame`` as the model's square, by the NumPy reference: same bytes as the C core's."""
    pixels = squash(to_rgb(frame.planes, frame.pixel_format, frame.width, frame.height), size)
    return CameraFrame((pixels.reshape(size, size * 3),), "RGB888", size, size)


def _check_planes(frame: CameraFrame) -> None:
    parts = check_planes(frame.planes, frame.pixel_format, frame.width, frame.height)
    for index, plane in enumerate(parts):
        if plane.shape[1] > 1 and plane.strides[1] != 1:
            raise FrameError(f"the bytes of a row of plane {index} are not neighbours: copy it")
