"""Image messages become the frames that a camera took: encodings, steps, byte orders, damage."""

from __future__ import annotations

import array
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from support.ros import image
from tatvpr_edge.mapping.messages import frame_of, stamp_s
from tatvpr_edge.runtime import CameraFrame
from tatvpr_edge.spec.errors import DataError, FrameError
from tatvpr_edge.spec.frames import plane_shapes, to_rgb

U8 = NDArray[np.uint8]

#: ROS's names (sensor_msgs/image_encodings.hpp) of what the operators take.
ENCODINGS = [
    "rgb8",
    "bgr8",
    "rgba8",
    "bgra8",
    "mono8",
    "8UC1",
    "mono16",
    "yuv422",
    "yuv422_yuy2",
    "nv21",
]


def rgb(frame: Any) -> U8:
    """The reference's pixels of a frame."""
    assert isinstance(frame, CameraFrame)
    return to_rgb(frame.planes, frame.pixel_format, frame.width, frame.height)


def message(encoding: str, data: Any, width: int, height: int, step: int, big: int = 0) -> Any:
    said = image(np.zeros((height, width, 3), np.uint8))
    said.encoding, said.data, said.step, said.is_bigendian = encoding, data, step, big
    return said


@given(
    st.sampled_from([*ENCODINGS, "nv12", "I420"]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 7),
    st.integers(0, 2**32 - 1),
)
def test_every_encoding_and_step_gives_the_pixels(
    encoding: str, half_width: int, half_height: int, padding: int, seed: int
) -> None:
    width, height = 2 * half_width, 2 * half_height
    rng = np.random.default_rng(seed)
    shapes = plane_shapes(encoding, width, height)
    if encoding == "I420":
        padding *= 2  # rows of chroma are half as long
    planes, data = [], b""
    for rows, columns in shapes:
        padded = columns + (padding if columns == shapes[0][1] else padding // 2)
        wide = rng.integers(0, 256, (rows, padded)).astype(np.uint8)
        planes.append(wide[:, :columns])
        data += wide.tobytes()
    step = shapes[0][1] + padding
    frame = frame_of(message(encoding, data, width, height, step))
    assert np.array_equal(rgb(frame), to_rgb(planes, encoding, width, height))
    # The last row's padding may be missing; one byte of a pixel may not.
    last = padding if shapes[-1][1] == shapes[0][1] else padding // 2
    frame_of(message(encoding, data[: len(data) - last], width, height, step))
    with pytest.raises(FrameError, match="cut short"):
        frame_of(message(encoding, data[: len(data) - last - 1], width, height, step))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, list, "array", "numpy"])
def test_bytes_come_as_each_middleware_gives_them(kind: Any) -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8)
    data = {"array": array.array("B", pixels.tobytes()), "numpy": pixels}.get(kind)
    if data is None:
        data = kind(pixels.tobytes())
    frame = frame_of(message("rgb8", data, 4, 2, 12))
    assert np.array_equal(rgb(frame), pixels.reshape(2, 4, 3))


@pytest.mark.parametrize("encoding", ["mono16", "RGB565"])
def test_words_of_either_byte_order_are_the_same_picture(encoding: str) -> None:
    words = np.random.default_rng(3).integers(0, 2**16, (4, 6)).astype(np.uint16)
    little = message(encoding, words.astype("<u2").tobytes(), 6, 4, 12, 0)
    big = message(encoding, words.astype(">u2").tobytes(), 6, 4, 12, 1)
    assert np.array_equal(rgb(frame_of(little)), rgb(frame_of(big)))


def test_byte_order_says_nothing_of_bytes() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    frame = frame_of(message("rgb8", pixels.tobytes(), 6, 4, 18, 1))
    assert np.array_equal(rgb(frame), pixels)


def test_pixels_are_not_copied() -> None:
    data = np.zeros(4 * 5 * 3, np.uint8)
    frame = frame_of(message("bgr8", data, 5, 4, 15))
    assert isinstance(frame, CameraFrame) and np.shares_memory(frame.planes[0], data)


@pytest.mark.parametrize(
    ("encoding", "width", "height", "step", "text"),
    [
        ("bayer_rggb8", 4, 4, 4, "bayer_rggb8"),
        ("BAYER_RGGB8", 4, 4, 4, "image_proc"),
        ("32FC1", 4, 4, 16, "'32FC1' is depth .*: take a topic of rgb8, bgr8"),
        ("8UC3", 4, 4, 12, "'8UC3' says no order of colours: take a topic of rgb8, bgr8"),
        ("nv24", 4, 4, 4, "'nv24' is not read: take a topic of rgb8, bgr8"),
        ("rgb8", 4, 4, 11, "driver is at fault"),
        ("rgb8", 4, 4, 0, "driver is at fault"),
        ("rgb8", 0, 4, 0, "empty"),
        ("rgb8", 4, 2**31, 12, "at most"),
        ("yuv422", 3, 4, 6, "even width"),
        ("rgb8", 4, 4, 2**32 - 1, "cut short"),
    ],
)
def test_what_is_no_image_is_told(
    encoding: str, width: int, height: int, step: int, text: str
) -> None:
    with pytest.raises(FrameError, match=text):
        said = message(encoding, bytes(48), 1, 1, step)
        said.width, said.height = width, height
        frame_of(said)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_compressed_images_are_decoded(format: str) -> None:
    pixels = np.full((6, 8, 3), (200, 30, 30), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    said = SimpleNamespace(format=format.lower(), data=file.getvalue())
    assert np.abs(frame_of(said).astype(int) - pixels).max() <= 3  # type: ignore[union-attr]
    said.data = said.data[: len(said.data) // 2]
    with pytest.raises(DataError):
        frame_of(said)
    said.data = b"no picture"
    with pytest.raises(DataError, match="no image that can be read"):
        frame_of(said)


def test_the_time_of_an_image() -> None:
    assert stamp_s(image(np.zeros((2, 2, 3), np.uint8), 3.25)) == 3.25
