"""Frame preparation: any size, format and stride; the bytes that Pillow's resize gives."""

from __future__ import annotations

import numpy as np
import pytest
from core_driver import OK, Driver
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_core_model import STATUS

from tatvpr_edge.spec.frames import FORMATS, to_rgb
from tatvpr_edge.spec.resize import squash

ROW_BYTES = {"RGB888": 3, "BGR888": 3, "GRAY8": 1, "RGB565": 2, "YUV422": 2, "NV12": 1}
U8 = NDArray[np.uint8]


def c_squash(
    driver: Driver, planes: list[U8], pixel_format: str, width: int, height: int, side: int,
    upside_down: bool = False, room: int = 0, kernels: str = "portable",
) -> tuple[int, U8]:  # fmt: skip
    """tatvpr_frame_squash; ``upside_down`` hands the rows over with a negative stride."""
    strides = [plane.shape[1] * (-1 if upside_down else 1) for plane in planes]
    rows = [plane.shape[0] for plane in planes]
    data = [plane[::-1].tobytes() if upside_down else plane.tobytes() for plane in planes]
    strides, rows = [*strides, 0][:2], [*rows, 0][:2]
    numbers = (FORMATS[pixel_format], width, height, side, *strides, *rows, 0, room)
    status, out = driver.call("squash", kernels, numbers, (), tuple(data))
    if status != OK:
        return status, np.zeros(0, np.uint8)
    return status, out[0].reshape(side, side, 3)


def planes_of(rng: np.random.Generator, pixel_format: str, w: int, h: int, pad: int) -> list[U8]:
    shapes = [(h, w * ROW_BYTES[pixel_format] + pad)]
    if pixel_format == "NV12":
        shapes.append((h // 2, w + pad))
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]


def test_equals_pillow_on_a_thousand_sizes(native: Driver) -> None:
    image = pytest.importorskip("PIL.Image")
    import PIL

    pillow13 = int(PIL.__version__.split(".")[0]) >= 13
    rng = np.random.default_rng(2024)
    for case in range(1000):
        width, height = (int(v) for v in np.exp(rng.uniform(0, np.log(420), 2)).round())
        side = int(rng.choice([1, 7, 32, 64, 128, 224]))
        frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        if case % 4 == 0:
            frame = (frame > 127).astype(np.uint8) * 255  # hard edges reach 0 and 255
        if pillow13:
            expected = np.asarray(image.fromarray(frame).resize((side, side), image.BILINEAR))
        else:  # older Pillow has another order of passes for tall frames
            expected = squash(frame, side)
        for kernels in (native.kernels[0], "portable"):
            status, got = c_squash(
                native, [frame.reshape(height, -1)], "RGB888", width, height, side, kernels=kernels
            )
            assert status == OK
            np.testing.assert_array_equal(got, expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    pixel_format=st.sampled_from(sorted(FORMATS)),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    side=st.integers(1, 48),
    pad=st.integers(0, 5),
    upside_down=st.booleans(),
)
def test_every_format_and_stride(
    native: Driver, seed: int, pixel_format: str, width: int, height: int, side: int, pad: int,
    upside_down: bool,
) -> None:  # fmt: skip
    if pixel_format in ("YUV422", "NV12"):
        width *= 2
    if pixel_format == "NV12":
        height *= 2
    planes = planes_of(np.random.default_rng(seed), pixel_format, width, height, pad)
    expected = squash(to_rgb(tuple(planes), pixel_format, width, height), side)
    for kernels in native.kernels:
        status, got = c_squash(
            native, planes, pixel_format, width, height, side, upside_down, kernels=kernels
        )
        assert status == OK
        np.testing.assert_array_equal(got, expected)


def test_large_frames_of_a_camera(native: Driver) -> None:
    rng = np.random.default_rng(3)
    for width, height in ((1920, 1080), (1080, 1920), (4056, 64), (64, 3040)):
        frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        expected = squash(frame, 224)
        for kernels in native.kernels:
            status, got = c_squash(
                native, [frame.reshape(height, -1)], "RGB888", width, height, 224, kernels=kernels
            )
            assert status == OK
            np.testing.assert_array_equal(got, expected)


def test_frames_that_cannot_be_read_are_refused(native: Driver) -> None:
    frame = np.zeros((8, 24), np.uint8)

    def status(pixel_format: int, width: int, height: int, stride: int, size: int = 0) -> int:
        numbers = (pixel_format, width, height, 16, stride, 0, 8, 0, size)
        return native.call("squash", "portable", numbers, (), (frame.tobytes(),))[0]

    assert status(1, 8, 8, 24) == OK
    for width, height in ((0, 8), (8, 0), (-1, 8), (8, -(2**31))):
        assert status(1, width, height, 24) == STATUS["TATVPR_ERR_FRAME"]
    for stride in (23, -23, 0):
        assert status(1, 8, 8, stride) == STATUS["TATVPR_ERR_FRAME"]
    for unknown in (0, 7, -1):
        assert status(unknown, 8, 8, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(5, 7, 8, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(6, 8, 8, 24) == STATUS["TATVPR_ERR_FRAME"]  # NV12 without its second plane
    assert status(6, 8, 7, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(1, 8, 8, 24, size=20) == STATUS["TATVPR_ERR_ABI"]
    assert status(3, 40000, 1, 40000) == STATUS["TATVPR_ERR_FRAME_TOO_LARGE"]


def test_tables_that_do_not_fit_are_refused_to_the_byte(native: Driver) -> None:
    frame = np.zeros((90, 200 * 3), np.uint8)
    low, high = 64, 1 << 20
    while high - low > 64:
        middle = (low + high) // 2 // 64 * 64
        status, _ = c_squash(native, [frame], "RGB888", 200, 90, 32, room=middle)
        assert status in (OK, STATUS["TATVPR_ERR_FRAME_TOO_LARGE"])
        low, high = (low, middle) if status == OK else (middle, high)
    assert c_squash(native, [frame], "RGB888", 200, 90, 32, room=high)[0] == OK
    short = c_squash(native, [frame], "RGB888", 200, 90, 32, room=high - 1)[0]
    assert short == STATUS["TATVPR_ERR_FRAME_TOO_LARGE"]
