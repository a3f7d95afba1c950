"""tools/render_places.py: true poses, changed light, the same frames for the same arguments."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.tools import lacking
from tatvpr_edge.spec.errors import DataError, UsageError

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "render_places.py"
sys.path.insert(0, str(SCRIPT.parent))

tool = importlib.import_module("render_places")
light = importlib.import_module("rendering.light")
scene = importlib.import_module("rendering.scene")
walls = importlib.import_module("rendering.walls")


def render(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--output", str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=output.parent)


SMALL = ("--maps", "map01,e1m1", "--places", "3", "--views", "3", "--seed", "5", "--size", "64x48")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("vizdoom") is None:
        lacking("vizdoom", "pip install 'tatvpr-edge[render]'")
    output = tmp_path_factory.mktemp("render") / "out"
    done = render(output, *SMALL)
    assert done.returncode == 0, done.stderr
    return output


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "poses.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_frame_has_a_pose_and_the_asked_size(rendered: Path) -> None:
    rows = rows_of(rendered)
    assert len(rows) == 2 * 3 * 3
    assert {row["name"] for row in rows} == {path.name for path in rendered.glob("*.jpg")}
    assert list(rows[0]) == list(tool.POSE_FIELDS)
    for row in rows:
        with Image.open(rendered / row["name"]) as frame:
            assert frame.size == (64, 48)
        turn = [float(row[axis]) for axis in ("qx", "qy", "qz", "qw")]
        assert math.isclose(sum(part * part for part in turn), 1, abs_tol=1e-5)
    settings = json.loads((rendered / "render.json").read_text())
    assert settings["places_per_map"] == {"map01": 3, "e1m1": 3}


def heading(row: dict[str, str]) -> float:
    """Yaw in degrees of Rz(yaw) Ry(pitch)."""
    x, y, z, w = (float(row[axis]) for axis in ("qx", "qy", "qz", "qw"))
    return math.degrees(math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def test_views_of_a_place_are_near_and_differ(rendered: Path) -> None:
    rows = rows_of(rendered)
    for place in {row["place"] for row in rows}:
        first, *others = [row for row in rows if row["place"] == place]
        assert others
        for other in others:
            away = math.dist(*([float(r["x"]), float(r["y"])] for r in (first, other)))
            assert 0 < away <= 1 + 1.5 / scene.UNITS_PER_METRE  # whole map units
            assert abs(scene.wrap(heading(first) - heading(other))) <= 13
            assert (rendered / first["name"]).read_bytes() != (
                rendered / other["name"]
            ).read_bytes()


def test_the_same_arguments_give_the_same_bytes_whatever_other_maps(
    rendered: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    done = render(again, "--maps", "e1m1", *SMALL[2:])
    assert done.returncode == 0, done.stderr
    frames = sorted(again.glob("*.jpg"))
    assert len(frames) == 9
    for frame in frames:
        assert frame.read_bytes() == (rendered / frame.name).read_bytes()
    assert rows_of(again) == [row for row in rows_of(rendered) if row["map"] == "e1m1"]


def test_split_and_only_keep_the_same_frames_apart(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("# chosen\nmap01-001\n")
    output = tmp_path / "out"
    done = render(output, *SMALL, "--split", "--only", "keep.txt")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in rows_of(output / "gallery")] == ["map01-001-0.jpg"]
    queries = [row["name"] for row in rows_of(output / "queries")]
    assert queries == ["map01-001-1.jpg", "map01-001-2.jpg"]
    for name in queries:
        assert (output / "queries" / name).read_bytes() == (rendered / name).read_bytes()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", ["out", "runs/out"])
def test_a_folder_is_named_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: bool
) -> None:
    """As the training page names them: `--output runs/rendered_train`."""
    monkeypatch.chdir(tmp_path)
    frame = np.zeros((48, 64, 3), np.uint8)
    with tool.Writer(Path(name), 88, split) as writer:
        for index in range(2):
            pose = scene.Pose(1.0, 2.0, 0.5, 0.1, 0.0)
            writer.add(tool.View(f"{index}.jpg", "p", "map01", index, pose, frame))
        writer.table(Path("odometry.csv"), [["0.jpg", *"abcdefghi"]])
        writer.finish(argparse.Namespace())
    folders = ["gallery", "queries"] if split else ["."]
    rows = [row["name"] for folder in folders for row in rows_of(Path(name) / folder)]
    assert rows == ["0.jpg", "1.jpg"]
    top = {path.name for path in Path(name).iterdir()}
    assert {"odometry.csv", "render.json"} < top and len(list(Path().iterdir())) == 1


@pytest.mark.parametrize("name", ["render_places", "render_drive"])
def test_a_folder_that_cannot_be_made_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    maps = "--map" if name == "render_drive" else "--maps"
    renderer = importlib.import_module(name)
    assert renderer.main(["--output", str(tmp_path / "file" / "out"), maps, "map01"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1 and "file" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--maps", "map33"), "no map 'map33'"),
        (("--maps", ","), "names no map"),
        (("--maps", "map01,map09-map03"), "map09-map03 is no range"),
        (("--maps", "map01,map01"), "or one twice"),
        (("--maps", "map01", "--size", "0x48"), "is not WIDTHxHEIGHT"),
        (("--maps", "map01", "--only", "absent.txt"), "cannot be read: No such file"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--output", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert says in printed.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_place_to_keep_leaves_nothing(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("map01-777\n")
    done = render(tmp_path / "out", *SMALL, "--only", "keep.txt")
    assert done.returncode == 1
    assert "no place map01-777" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_an_existing_folder_is_not_touched(rendered: Path) -> None:
    before = sorted(rendered.iterdir())
    done = render(rendered, *SMALL)
    assert done.returncode == 1
    assert "exists: name a new folder" in done.stderr
    assert sorted(rendered.iterdir()) == before


def test_maps_are_parsed_in_order() -> None:
    assert tool.parse_maps("map09-map11, E1M1") == ["map09", "map10", "map11", "e1m1"]
    with pytest.raises(UsageError):
        tool.parse_maps("")


def test_no_place_to_keep_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="names no place"):
        tool.read_only(tmp_path / "empty.txt")


@given(st.floats(-720, 720), st.floats(-80, 80))
def test_the_quaternion_points_the_camera_where_it_looks(yaw: float, pitch: float) -> None:
    x, y, z, w = scene.Pose(0, 0, 0, yaw, pitch).quaternion()
    # The rotated forward axis (1, 0, 0), by the rotation matrix of a unit quaternion.
    ahead = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    flat = math.cos(math.radians(pitch))
    east, north = math.cos(math.radians(yaw)) * flat, math.sin(math.radians(yaw)) * flat
    assert np.allclose(ahead, (east, north, -math.sin(math.radians(pitch))), atol=1e-9)


def test_no_light_strength_changes_no_pixel() -> None:
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    drawn = light.Light.draw(rng, 0.0)
    assert drawn == light.Light()
    assert np.array_equal(drawn.apply(frame, rng), frame)


@given(st.integers(0, 2**32 - 1))
def test_light_keeps_the_order_of_grey_levels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = dataclasses.replace(light.Light.draw(rng, 1.0), noise=0.0)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    lit = drawn.apply(ramp, rng).astype(int)
    assert (np.diff(lit, axis=1) >= 0).all()
    assert lit[0, 0].tolist() == [0, 0, 0]


BOX = np.array([[0, 0, 100, 0], [100, 0, 100, 50], [100, 50, 0, 50], [0, 50, 0, 0]], float)


@given(st.floats(1, 99), st.floats(1, 49))
def test_walls_of_a_box_are_as_far_as_they_look(x: float, y: float) -> None:
    box = walls.Walls(BOX)
    assert math.isclose(box.clearance(x, y), min(x, 100 - x, y, 50 - y))
    ahead = box.free_distance(x, y, np.array([0.0, 90.0, 180.0, 270.0]))
    assert np.allclose(ahead, [100 - x, 50 - y, x, y])
    assert box.reach(x, y, 50, 25)
    assert not box.reach(x, y, x + 100, y)
