"""tools/photo_places.py: true views of a photograph, nothing from beyond its edge, and places that
the trainer reads."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.models.data.formats import labelled
from tatvpr_edge.spec.errors import DataError

tool = importlib.import_module("photo_places")

FOV = math.radians(65.0)
SIZES = st.tuples(st.integers(160, 900), st.integers(160, 900))


def write_photo(path: Path, size: tuple[int, int], seed: int) -> None:
    """Coloured boxes on grey, without an edge of their own at the picture's border."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, (120, 120, 120))
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        w, h = rng.integers(10, 80, size=2)
        draw.rectangle((x, y, x + w, y + h), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    image.save(path)


def project(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    u, v, w = matrix @ np.array([x, y, 1.0])
    return u / w, v / w


def test_a_level_camera_at_zoom_one_sees_the_largest_part_of_its_shape() -> None:
    matrix = tool.homography((800, 480), (320, 240), FOV, (0, 0, 0), 1.0)
    assert project(matrix, 0, 0) == pytest.approx((80, 0))
    assert project(matrix, 320, 240) == pytest.approx((720, 480))


def test_a_turn_moves_the_centre_by_the_focal_length_times_its_tangent() -> None:
    turn, focal = math.radians(5), 400 / math.tan(FOV / 2)
    matrix = tool.homography((800, 600), (320, 240), FOV, (turn, 0, 0), 1.3)
    x, y = project(matrix, 160, 120)
    assert y == pytest.approx(300)
    assert x == pytest.approx(400 + focal * math.tan(turn))


@settings(max_examples=60, deadline=None)
@given(photo=SIZES, seed=st.integers(0, 1000))
def test_no_camera_sees_past_the_edge(photo: tuple[int, int], seed: int) -> None:
    cameras = tool.Cameras(turn_deg=25.0, zoom=(1.0, 2.2))
    matrix = tool.draw_view(photo, cameras, np.random.default_rng(seed))
    assert tool.is_inside(matrix, photo, (320, 240))


@settings(max_examples=60, deadline=None)
@given(photo=SIZES, seed=st.integers(0, 1000))
def test_a_camera_without_room_to_zoom_is_turned_back(photo: tuple[int, int], seed: int) -> None:
    cameras = tool.Cameras(zoom=(1.0, 1.0))
    matrix = tool.draw_view(photo, cameras, np.random.default_rng(seed))
    assert tool.is_inside(matrix, photo, cameras.size)


@settings(max_examples=10, deadline=None)
@given(x=st.integers(240, 400), y=st.integers(180, 300), seed=st.integers(0, 99))
def test_what_a_view_shows_lies_where_the_homography_says(x: int, y: int, seed: int) -> None:
    image = Image.new("RGB", (640, 480))
    ImageDraw.Draw(image).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(255, 255, 255))
    matrix = tool.draw_view((640, 480), tool.Cameras(), np.random.default_rng(seed))
    at = project(np.linalg.inv(matrix), x, y)
    assume(20 < at[0] < 300 and 20 < at[1] < 220)
    seen = np.asarray(tool.render_view(image, matrix, (320, 240)).convert("L"), dtype=np.float64)
    rows, columns = np.mgrid[0:240, 0:320] + 0.5
    assert (seen * columns).sum() / seen.sum() == pytest.approx(at[0], abs=1.0)
    assert (seen * rows).sum() / seen.sum() == pytest.approx(at[1], abs=1.0)


def test_places_are_written_and_the_trainer_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, size in enumerate([(640, 480), (300, 500), (500, 300)]):
        write_photo(photos / f"p{number}.png", size, number)
    write_photo(photos / "tiny.png", (100, 300), 9)
    for name in ("a", "b"):
        given = ["--photos", str(photos), "--output", str(tmp_path / name)]
        given += ["--views", "3", "--size", "96x72"]
        assert tool.main(given) == 0
    assert "3 places of 3 views; 1 photographs too small" in capsys.readouterr().out
    places = labelled(tmp_path / "a")
    assert [len(members) for members in places.places] == [3, 3, 3]
    for path in places.paths:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    frames = [np.asarray(open_rgb(path), dtype=np.int16) for path in places.paths[:3]]
    assert {frame.shape for frame in frames} == {(72, 96, 3)}
    assert all(np.abs(a - b).mean() > 2 for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "320"], "expected WIDTHxHEIGHT"),
        (["--zoom", "0.5-2"], "expected FROM-TO"),
        (["--zoom", "2-1.5"], "expected FROM-TO"),
    ],
)
def test_bad_options_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write_photo(tmp_path / "p.png", (320, 240), 0)
    given = ["--photos", str(tmp_path), "--output", str(tmp_path / "out"), *options]
    assert tool.main(given) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_photographs_and_a_taken_output_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    assert tool.main(["--photos", str(empty), "--output", str(out)]) == 1
    assert str(empty) in capsys.readouterr().err
    write_photo(empty / "p.png", (320, 240), 0)
    out.mkdir()
    assert tool.main(["--photos", str(empty), "--output", str(out)]) == 1
    assert "exists: name a new folder" in capsys.readouterr().err


def test_a_broken_photograph_is_named_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    write_photo(photos / "a.png", (320, 240), 0)
    (photos / "b.jpg").write_bytes(b"\xff\xd8 no picture")
    assert tool.main(["--photos", str(photos), "--output", str(out)]) == 1
    assert "b.jpg" in capsys.readouterr().err
    assert not out.exists() and not [*tmp_path.glob(".out.*")]


def test_a_folder_that_another_tool_filled_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def places() -> Iterator[list[Image.Image]]:
        yield [Image.new("RGB", (8, 8))]
        tool.write_frames(out, [[Image.new("RGB", (8, 8))] * 2])

    with pytest.raises(DataError, match="out exists"):
        tool.write_frames(out, places())
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and len([*out.iterdir()]) == 3
