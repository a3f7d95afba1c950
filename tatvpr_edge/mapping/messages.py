"""Image messages to frames: whatever carries them, by the names of their fields.

In: ``sensor_msgs/Image`` or ``CompressedImage`` of rclpy, of cyclonedds or of a bag. Out: what
``Localizer.query`` takes. Which encodings there are is ``spec.frames``' matter.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime import CameraFrame
from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import canonical_format, plane_shapes
from tatvpr_edge.spec.values import shown

U8 = NDArray[np.uint8]
#: ROS's names of what is read; ``spec.frames`` knows more.
_READ = "rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422, yuv422_yuy2 or nv21"
#: Formats of 16-bit words, whose byte order a message may say is the other one.
_WORDS = frozenset(("RGB565", "GRAY10", "GRAY12", "GRAY16"))


def frame_of(message: Any) -> CameraFrame | U8:
    """The frame of an ``Image`` (which has a ``step``) or of a ``CompressedImage``.

    The pixels are a view of the message's bytes where they need no other order.

    Raises:
        FrameError: an unknown encoding or too few bytes; the text says which.
        DataError: what is compressed is no picture, or damaged.
    """
    return _raw(message) if hasattr(message, "step") else _compressed(message)


def stamp_s(message: Any) -> float:
    """The time of a message's header in seconds; 0.0 where nobody set it."""
    stamp = message.header.stamp
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def stamp_ns(message: Any) -> int:
    """As :func:`stamp_s`, in nanoseconds and exact."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _bytes(data: Any) -> U8:
    """The bytes of ``uint8[]``: bytes, array.array (rclpy), NumPy (bags) or a list."""
    if isinstance(data, list):
        return np.array(data, np.uint8)
    return np.frombuffer(data, np.uint8)


def _raw(message: Any) -> CameraFrame:
    width, height, step = int(message.width), int(message.height), int(message.step)
    name = canonical_format(message.encoding)
    if name not in FORMATS:
        raise _unread(str(message.encoding))
    shapes = plane_shapes(name, width, height)
    data, planes, begin = _bytes(message.data), [], 0
    for index, (rows, columns) in enumerate(shapes):
        # Chroma of I420 is half as wide as its luma, and so are its rows.
        stride = step * columns // shapes[0][1] if index else step
        if stride < columns:
            raise FrameError(
                f"an image of {width} x {height} in {message.encoding} has rows of at least "
                f"{shapes[0][1]} bytes, and its step says {step}: the camera's driver is at fault"
            )
        # The last row may end with its last pixel.
        end = begin + (rows - 1) * stride + columns
        if end > len(data):
            raise FrameError(
                f"an image of {width} x {height} in {message.encoding} with step {step} has "
                f"{len(data)} bytes: it was cut short"
            )
        planes.append(
            np.lib.stride_tricks.as_strided(
                data[begin:end], (rows, columns), (stride, 1), writeable=False
            )
        )
        begin += rows * stride
    if message.is_bigendian and name in _WORDS:
        words = planes[0].reshape(height, -1, 2)
        planes[0] = np.ascontiguousarray(words[:, :, ::-1]).reshape(height, -1)
    return CameraFrame(tuple(planes), name, width, height)


def _unread(encoding: str) -> FrameError:
    """Why an image of such an encoding is no frame, and what to take instead."""
    kind = encoding.lower()
    if kind.startswith("bayer_"):
        return FrameError(
            f"the image is {shown(encoding)}, a mosaic that is no picture yet: take the topic that "
            "image_proc or the camera's driver makes of it (image_color, image_rect_color)"
        )
    if kind.startswith(("8uc", "8sc")):
        why = "says no order of colours"
    elif kind[:2] in ("32", "64"):
        why = "is depth or another measure, no picture"
    else:
        why = "is not read"
    return FrameError(f"the image's encoding {shown(encoding)} {why}: take a topic of {_READ}")


def _compressed(message: Any) -> U8:
    if "compressedDepth" in message.format:
        raise FrameError(
            f"the image is compressed depth ({message.format}), no picture: take a topic of colour "
            "or gray"
        )
    from tatvpr_edge.mapping.pictures import read_frame

    return read_frame(io.BytesIO(bytes(message.data)))
