"""The NumPy reference of frame preparation: Pillow's resize, and the equations of each format."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.frames import plane_shapes, to_rgb
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
    [("JPEG", 2, 2), ("NV12", 3, 2), ("NV12", 2, 3), ("YUV422", 3, 1), ("RGB888", 0, 1)],
)
def test_sizes_that_a_format_cannot_have_are_told(name: str, width: int, height: int) -> None:
    with pytest.raises(FrameError):
        plane_shapes(name, width, height)
