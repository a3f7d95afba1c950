"""Frame preparation: any size, format and stride; the bytes that Pillow's resize gives."""

from __future__ import annotations

import numpy as np
import pytest
from core_driver import OK, Driver
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_core_model import STATUS

from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import YUV, YUV_FORMATS, plane_shapes, to_rgb, yuv_code
from tatvpr_edge.spec.resize import squash

U8 = NDArray[np.uint8]


def c_squash(
    driver: Driver, planes: list[U8], pixel_format: str, width: int, height: int, side: int,
    upside_down: bool = False, room: int = 0, kernels: str = "portable", yuv: int = 0,
    size: int = 0,
) -> tuple[int, U8]:  # fmt: skip
    """tatvpr_frame_squash; ``upside_down`` hands the rows over with a negative stride."""
    strides = [plane.shape[1] * (-1 if upside_down else 1) for plane in planes]
    rows = [plane.shape[0] for plane in planes]
    data = [plane[::-1].tobytes() if upside_down else plane.tobytes() for plane in planes]
    strides, rows = [*strides, 0, 0][:3], [*rows, 0, 0][:3]
    numbers = (
        FORMATS[pixel_format], width, height, side, *strides[:2], *rows[:2], size, room,
        strides[2], rows[2], yuv,
    )  # fmt: skip
    status, out = driver.call("squash", kernels, numbers, (), tuple(data))
    if status != OK:
        return status, np.zeros(0, np.uint8)
    return status, out[0].reshape(side, side, 3)


def planes_of(rng: np.random.Generator, pixel_format: str, w: int, h: int, pad: int) -> list[U8]:
    shapes = [(rows, columns + pad) for rows, columns in plane_shapes(pixel_format, w, h)]
    return [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]


def test_equals_pillow_on_a_thousand_sizes(native: Driver) -> None:
    import PIL
    from PIL import Image

    pillow13 = int(PIL.__version__.split(".")[0]) >= 13
    rng = np.random.default_rng(2024)
    for case in range(1000):
        width, height = (int(v) for v in np.exp(rng.uniform(0, np.log(420), 2)).round())
        side = int(rng.choice([1, 7, 32, 64, 128, 224]))
        frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        if case % 4 == 0:
            frame = (frame > 127).astype(np.uint8) * 255  # hard edges reach 0 and 255
        if pillow13:
            expected = np.asarray(
                Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
            )
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
    color=st.sampled_from(sorted(YUV)),
)
def test_every_format_and_stride(
    native: Driver, seed: int, pixel_format: str, width: int, height: int, side: int, pad: int,
    upside_down: bool, color: tuple[str, str],
) -> None:  # fmt: skip
    if pixel_format in YUV_FORMATS:
        width, height = width * 2, height * 2
    else:
        color = ("full", "bt601")
    planes = planes_of(np.random.default_rng(seed), pixel_format, width, height, pad)
    expected = squash(to_rgb(tuple(planes), pixel_format, width, height, *color), side)
    for kernels in native.kernels:
        status, got = c_squash(
            native, planes, pixel_format, width, height, side, upside_down, kernels=kernels,
            yuv=yuv_code(pixel_format, *color),
        )  # fmt: skip
        assert status == OK
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("color", sorted(YUV))
def test_every_colour_of_yuv_is_the_reference(native: Driver, color: tuple[str, str]) -> None:
    """4 x 4 of each (Y, U, V) on a grid that holds black, white and both ends of every range."""
    steps = np.array([0, 1, 15, 16, 17, 90, 127, 128, 129, 200, 235, 236, 240, 241, 254, 255])
    y, u, v = (part.reshape(16, 256).astype(np.uint8) for part in np.meshgrid(steps, steps, steps))
    planes = [np.repeat(np.repeat(y, 2, axis=0), 2, axis=1), u, v]
    expected = squash(to_rgb(tuple(planes), "I420", 512, 32, *color), 64)
    yuv = yuv_code("I420", *color)
    status, got = c_squash(native, planes, "I420", 512, 32, 64, yuv=yuv)
    assert status == OK
    np.testing.assert_array_equal(got, expected)


def test_padding_of_an_older_caller_is_no_colour_space(native: Driver) -> None:
    """Before the field ``yuv`` the structure had 52 bytes and 4 of padding, here not zero."""
    planes = planes_of(np.random.default_rng(8), "NV12", 32, 32, 0)
    expected = squash(to_rgb(tuple(planes), "NV12", 32, 32), 16)
    for size in (52, 56):
        status, got = c_squash(native, planes, "NV12", 32, 32, 16, yuv=3, size=size)
        assert status == OK
        np.testing.assert_array_equal(got, expected)


def test_a_colour_space_is_refused_where_it_means_nothing(native: Driver) -> None:
    for pixel_format in sorted(FORMATS):
        planes = planes_of(np.random.default_rng(8), pixel_format, 8, 8, 0)
        for yuv in (1, 2, 3, 4, 2**31 - 1):
            meant = pixel_format in YUV_FORMATS and yuv < 4
            status, _ = c_squash(native, planes, pixel_format, 8, 8, 4, yuv=yuv)
            assert status == (OK if meant else STATUS["TATVPR_ERR_FORMAT"]), (pixel_format, yuv)


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
    for unknown in (0, len(FORMATS) + 1, -1):
        assert status(unknown, 8, 8, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(5, 7, 8, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(6, 8, 8, 24) == STATUS["TATVPR_ERR_FRAME"]  # NV12 without its second plane
    for planar in (FORMATS["I420"], FORMATS["NV21"]):
        assert status(planar, 8, 8, 24) == STATUS["TATVPR_ERR_FRAME"]
        assert status(planar, 8, 7, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(FORMATS["UYVY"], 7, 8, 24) == STATUS["TATVPR_ERR_FORMAT"]
    assert status(FORMATS["RGBA"], 7, 8, 27) == STATUS["TATVPR_ERR_FRAME"]  # 28 bytes a row
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
