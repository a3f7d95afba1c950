"""The NumPy reference of frame preparation: Pillow's resize, and the equations of each format."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.frames import (
    ALIASES,
    FORMATS,
    YUV,
    canonical_format,
    plane_shapes,
    to_rgb,
)
from tatvpr_edge.spec.resize import down_first, squash

PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13


def pillow_squash(frame: np.ndarray, size: int) -> np.ndarray:  # type: ignore[type-arg]
    """What Pillow makes; before version 13 it always went across first."""
    image = Image.fromarray(frame)
    if not PILLOW_13 and down_first(image.width, image.height, size):
        image = image.resize((image.width, size), Image.Resampling.BILINEAR)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def test_a_thousand_random_sizes_equal_pillow_byte_for_byte() -> None:
    rng = np.random.default_rng(42)
    for case in range(1000):
        width, height = (int(side) for side in np.exp(rng.uniform(0, 6, 2)))
        size = int(rng.choice([1, 7, 16, 32, 128]))
        frame = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        if case % 3 == 0:
            frame = np.where(frame > 127, 255, 0).astype(np.uint8)
        np.testing.assert_array_equal(squash(frame, size), pillow_squash(frame, size))


@pytest.mark.parametrize("size", [128, 224])
@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (1920, 1080), (256, 455), (224, 224)])
def test_cameras_sizes_equal_pillow(shape: tuple[int, int], size: int) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    np.testing.assert_array_equal(squash(frame, size), pillow_squash(frame, size))


def test_rgb565_reaches_black_and_white() -> None:
    words = np.array([[0x0000, 0xFFFF, 0xF800, 0x07E0, 0x001F, 0x8410]], dtype="<u2")
    made = to_rgb((words.view(np.uint8),), "RGB565", 6, 1)[0].tolist()
    assert made[:5] == [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert made[5] == [132, 130, 132]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_yuv_is_within_rounding_of_the_real_equations(y: int, u: int, v: int) -> None:
    yuyv = np.array([[y, u, y, v]], dtype=np.uint8)
    made = to_rgb((yuyv,), "YUV422", 2, 1)[0]
    real = [
        y + 1.402 * (v - 128),
        y - 0.344136286 * (u - 128) - 0.714136286 * (v - 128),
        y + 1.772 * (u - 128),
    ]
    assert np.abs(made[0] - np.clip(real, 0, 255)).max() <= 0.51
    assert made[0].tolist() == made[1].tolist()


def test_nv12_shares_chroma_between_four_pixels() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    uv = rng.integers(0, 256, (2, 6)).astype(np.uint8)
    made = to_rgb((y, uv), "NV12", 6, 4)
    for row in range(4):
        for column in range(6):
            u, v = uv[row // 2, column // 2 * 2], uv[row // 2, column // 2 * 2 + 1]
            pair = np.array([[y[row, column], u, y[row, column], v]], dtype=np.uint8)
            assert made[row, column].tolist() == to_rgb((pair,), "YUV422", 2, 1)[0, 0].tolist()


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("JPEG", 2, 2),
        ("NV12", 3, 2),
        ("NV12", 2, 3),
        ("YUV422", 3, 1),
        ("RGB888", 0, 1),
        ("UYVY", 3, 1),
        ("I420", 2, 3),
        ("I420", 3, 2),
        ("NV21", 2, 3),
        ("bayer_rggb8", 2, 2),
        ("Yuv422", 2, 2),
        ("rgb16", 2, 2),
    ],
)
def test_sizes_that_a_format_cannot_have_are_told(name: str, width: int, height: int) -> None:
    with pytest.raises(FrameError):
        plane_shapes(name, width, height)


@given(st.sampled_from(sorted(YUV)), *[st.integers(0, 255)] * 3)
def test_each_range_and_matrix_is_within_rounding_of_its_standard(
    color: tuple[str, str], y: int, u: int, v: int
) -> None:
    made = to_rgb((np.array([[y, u, y, v]], np.uint8),), "YUV422", 2, 1, *color)[0, 0]
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[color[1]]
    limited = color[0] == "limited"
    luma = (y - 16) * 255 / 219 if limited else y
    cb, cr = ((c - 128) * (255 / 112 / 2 if limited else 1.0) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = luma - (2 * (1 - kr) * kr * cr + 2 * (1 - kb) * kb * cb) / (1 - kr - kb)
    assert np.abs(made - np.clip([red, green, blue], 0, 255)).max() <= 0.51


def test_the_same_picture_in_every_layout_is_the_same_rgb() -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    u, v = (rng.integers(0, 256, (2, 3)).astype(np.uint8) for _ in range(2))
    wanted = to_rgb((y, u, v), "I420", 6, 4)
    interleave = [np.stack(pair, axis=-1).reshape(2, 6) for pair in ((u, v), (v, u))]
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 0::2], wide[:, 1::4], wide[:, 3::4] = y, u.repeat(2, axis=0), v.repeat(2, axis=0)
    swapped = wide.reshape(4, 6, 2)[:, :, ::-1].reshape(4, 12)
    filler = rng.integers(0, 256, (4, 6, 1)).astype(np.uint8)
    rgba = np.concatenate([wanted, filler], axis=2).reshape(4, 24)
    bgra = np.concatenate([wanted[:, :, ::-1], filler], axis=2).reshape(4, 24)
    same: list[tuple[str, tuple[np.ndarray, ...]]] = [  # type: ignore[type-arg]
        ("nv12", (y, interleave[0])), ("NV21", (y, interleave[1])), ("YUYV", (wide,)),
        ("YUY2", (wide,)), ("yuv422_yuy2", (wide,)), ("UYVY", (swapped,)), ("yuv422", (swapped,)),
        ("YU12", (y, u, v)), ("RGBA", (rgba,)), ("RGBx", (rgba,)), ("rgba8", (rgba,)),
        ("BGRx", (bgra,)), ("bgra8", (bgra,)), ("XR24", (bgra,)),
    ]  # fmt: skip
    for name, planes in same:
        np.testing.assert_array_equal(to_rgb(planes, name, 6, 4), wanted, err_msg=name)


@pytest.mark.parametrize(("name", "bits"), [("Y10 ", 10), ("GRAY12_LE16", 12), ("mono16", 16)])
def test_gray_of_more_bits_keeps_the_upper_eight(name: str, bits: int) -> None:
    most = (1 << bits) - 1
    words = np.array([[0, 255, most // 2 + 1, most, 65535]], dtype="<u2")
    made = to_rgb((words.view(np.uint8),), name, 5, 1)[0]
    assert made[:, 0].tolist() == [0, 255 >> (bits - 8), 128, 255, 255]
    assert (made == made[:, :1]).all()


def test_names_are_those_of_v4l2_gstreamer_and_ros() -> None:
    known = {
        "YUYV": "YUV422", "YUY2": "YUV422", "yuyv": "YUV422", "uyvy": "UYVY", "yuv422": "UYVY",
        "mono8": "GRAY8", "GREY": "GRAY8", "MONO16": "GRAY16", "GRAY16_LE": "GRAY16",
        "rgb8": "RGB888", "bgr8": "BGR888", "RGB3": "RGB888", "BGRx": "BGRA", "RGBP": "RGB565",
        "RGB16": "RGB565", "i420": "I420", "Y12 ": "GRAY12", "NM12": "NV12",
    }  # fmt: skip
    assert {name: canonical_format(name) for name in known} == known
    assert set(ALIASES.values()) <= set(FORMATS) and not set(ALIASES) & set(FORMATS)
    for name in FORMATS:
        assert canonical_format(name) == name
    assert canonical_format("rgb16") == "rgb16"  # ROS: 16 bits a channel, not RGB565
