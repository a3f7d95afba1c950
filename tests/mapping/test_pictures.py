"""A picture has the same pixels for everybody: query, map, evaluation, training, tools."""

from __future__ import annotations

import struct
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.evaluate.protocols import LazyImages
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.resize import squash
from tatvpr_edge.spec.workers import in_order

SCENE = scenes(1, 60, 90)[0]


def saved(path: Path, kind: str) -> Path:
    """The scene as ``kind``, upright for whoever reads the file as its EXIF says."""
    image = Image.fromarray(SCENE)
    if kind == "turned":
        # A camera held upright writes its pixels lying down, and says so.
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    elif kind == "deep":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    elif kind == "palette":
        image.quantize(250).save(path)
    elif kind == "cmyk":
        image.convert("CMYK").save(path, format="TIFF")
    elif kind == "alpha":
        image.convert("RGBA").save(path)
    else:
        image.save(path, lossless=True) if kind == "webp" else image.save(path)
    return path


PALETTE = np.asarray(Image.fromarray(SCENE).quantize(250).convert("RGB"))
GRAY = np.repeat(np.asarray(Image.fromarray(SCENE).convert("L"))[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    ("kind", "name", "wanted", "off"),
    [
        ("plain", "f.png", SCENE, 0),
        ("turned", "f.png", SCENE, 0),
        ("deep", "f.png", GRAY, 0),
        ("palette", "f.png", PALETTE, 0),
        ("cmyk", "f.tif", SCENE, 1),
        ("alpha", "f.png", SCENE, 0),
        ("webp", "f.webp", SCENE, 0),
        ("plain", "f.bmp", SCENE, 0),
        ("plain", "f.tiff", SCENE, 0),
    ],
)
def test_every_room_reads_the_same_pixels(
    tmp_path: Path, kind: str, name: str, wanted: np.ndarray, off: int
) -> None:
    path = saved(tmp_path / name, kind)
    frame = tatvpr_edge.read_frame(path)
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - wanted).max() <= off
    # Evaluation and training used a reader of their own: 37.5 % of turned frames were found.
    np.testing.assert_array_equal(np.asarray(LazyImages([path])[0]), frame)
    np.testing.assert_array_equal(load_frames([path], 16)[0], squash(frame, 16))


def test_a_pillow_image_is_read_like_its_file(tmp_path: Path) -> None:
    for kind, name in (("turned", "t.png"), ("palette", "p.png"), ("cmyk", "c.tif")):
        path = saved(tmp_path / name, kind)
        with Image.open(path) as image:
            np.testing.assert_array_equal(
                tatvpr_edge.read_frame(image), tatvpr_edge.read_frame(path)
            )


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    whole = saved(tmp_path / "f.png", "plain").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    for name, words in (("cut.png", "damaged"), ("text.png", "no image"), ("not.png", "no such")):
        for read in (tatvpr_edge.read_frame, open_rgb):
            with pytest.raises(DataError, match=words) as told:
                read(tmp_path / name)
            assert name in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PCX", "ICO", "TGA"])
def test_a_kind_that_is_not_read_is_not_looked_into(kind: str, tmp_path: Path) -> None:
    """Whatever its name says: Pillow has Ghostscript run what an EPS file holds."""
    path = tmp_path / "f.jpg"
    Image.fromarray(SCENE).save(path, kind)
    for source in (path, BytesIO(path.read_bytes())):
        with pytest.raises(DataError, match="no image that can be read: expected JPEG"):
            open_rgb(source)


def test_a_phones_picture_of_several_is_its_first(tmp_path: Path) -> None:
    path = tmp_path / "f.jpg"
    first = Image.fromarray(SCENE)
    first.save(path, "MPO", save_all=True, append_images=[Image.new("RGB", first.size)])
    assert np.abs(np.asarray(open_rgb(path)).astype(int) - SCENE).mean() < 20


def test_damaged_exif_turns_what_it_still_says_and_is_no_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Five entries are announced: the first says how the camera was held, the others are gone."""
    entry = struct.pack("<HHII", 0x0112, 3, 1, 6)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 5) + entry + bytes(3)
    file = BytesIO()
    Image.fromarray(SCENE[:40]).transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    assert np.array_equal(tatvpr_edge.read_frame(BytesIO(file.getvalue())), SCENE[:40])
    Image.fromarray(SCENE[:40]).save(file := BytesIO(), "JPEG", exif=exif)
    assert tatvpr_edge.read_frame(BytesIO(file.getvalue())).shape == (90, 40, 3)
    assert list(recwarn) == []


def test_threads_that_read_pictures_leave_the_processs_warnings_alone() -> None:
    """What is refused as too large stays refused, whatever other threads open meanwhile."""
    Image.fromarray(SCENE).save(usual := BytesIO(), "BMP")
    large = bytearray(usual.getvalue())
    large[18:26] = struct.pack("<ii", 10_000, 9_000)
    before = list(warnings.filters)

    def one(number: int) -> bool:
        if number % 2:
            return tatvpr_edge.read_frame(BytesIO(usual.getvalue())).shape == SCENE.shape
        with pytest.raises(DataError, match="too many pixels"):
            tatvpr_edge.read_frame(BytesIO(large))
        return True

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert all(in_order(one, range(600), workers=4))
    finally:
        sys.setswitchinterval(switch)
    assert list(warnings.filters) == before
