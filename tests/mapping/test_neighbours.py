"""Places along a drive keep a part of their neighbours; places that are none keep to themselves."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from tatvpr_edge.cli import main
from tatvpr_edge.mapping import FrameFile, Poses, extend_map, frame_files, map_stats, merge_maps
from tatvpr_edge.mapping.neighbours import PART, following, lent, neighbouring
from tatvpr_edge.mapping.recordings.frames import RecordedFrame
from tatvpr_edge.models.evaluate import run
from tatvpr_edge.models.evaluate.describers import Gray32
from tatvpr_edge.models.evaluate.folders import compare_folders
from tatvpr_edge.models.evaluate.protocols import Trial, tower_shift, utm
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.mapjournal import compact
from tatvpr_edge.runtime.views import describe_place
from tatvpr_edge.spec.scores import int8_rows


def folder_of(
    where: Path, pixels: Sequence[np.ndarray[Any, Any]], xs: Sequence[float] = ()
) -> Path:
    """Frames 00.png, 01.png ..., and where they were taken."""
    where.mkdir()
    names = [f"{index:02}.png" for index in range(len(pixels))]
    for name, frame in zip(names, pixels, strict=True):
        Image.fromarray(frame).save(where / name)
    rows = [f"{name},{x:g},0" for name, x in zip(names, xs, strict=False)]
    if rows:
        (where / "poses.csv").write_text("\n".join(["name,x,y", *rows]) + "\n")
    return where


def stored(path: Path) -> Any:
    """The whole numbers that a map keeps of its places, int8 [N, D]."""
    place_map = PlaceMap(path)
    both = (place_map.stored.base.rows[0], place_map.stored.added.rows[0])
    return np.concatenate([rows.data for rows in both])


def alone(localizer: Localizer, pixels: Sequence[np.ndarray[Any, Any]]) -> Any:
    """Descriptors of frames as places without neighbours, float32 [N, D]."""
    describe = localizer.backend.describe
    rows = [describe_place(describe, check_frame(frame), [(1.0, 1.0)], 0.2)[0] for frame in pixels]
    return np.stack(rows)


def test_neighbours_of_known_position_keep_three_tenths_of_each_other(
    tiny_host: Path, tmp_path: Path
) -> None:
    pixels = scenes(4)
    # The second lies between two others; the fourth is 10.5 m on.
    frames = folder_of(tmp_path / "frames", pixels, [0, 4, 14, 24.5])
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
        own = alone(localizer, pixels)
        wanted = own.copy()
        wanted[0] += np.float32(0.3) * own[1]
        wanted[1] += np.float32(0.3) * (own[0] + own[2])
        wanted[2] += np.float32(0.3) * own[1]
        found = stored(made.path) / np.linalg.norm(stored(made.path), axis=1)[:, None]
        wanted /= np.linalg.norm(wanted, axis=1)[:, None]
        assert (found * wanted).sum(1) == pytest.approx(np.ones(4), abs=2e-3)
        assert np.array_equal(stored(made.path)[3:], int8_rows(own[3:])[0])
        single = tatvpr_edge.build_map(localizer, frames, tmp_path / "s", views=False)
        frame_alone = [localizer.describe(frame, k=1.0, tokens=1.0) for frame in pixels]
        assert np.array_equal(stored(single.path), int8_rows(np.stack(frame_alone))[0])


def test_a_frame_that_is_left_out_takes_its_own_position_with_it(
    tiny_host: Path, tmp_path: Path
) -> None:
    """The others' are not moved up, nor who their neighbours are."""
    frames = folder_of(tmp_path / "frames", scenes(5), xs := [0, 500, 4, 1000, 1004])
    (frames / "01.png").write_bytes(b"no picture")
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
        tatvpr_edge.build_map(localizer, frames, path := tmp_path / "single", views=False)
        added = extend_map(localizer, frames, path)
    assert (made.places, made.neighbours, added.places, added.neighbours) == (4, 4, 4, 4)
    place_map = PlaceMap(path)
    at = [(place_map.tag(place), place_map.pose(place)[0]) for place in range(8)]
    assert at == 2 * [(f"{number:02}.png", xs[number]) for number in (0, 2, 3, 4)]


def test_a_drive_that_went_on_since_is_added_from_where_the_map_ends(
    tiny_host: Path, tmp_path: Path
) -> None:
    """Its first and last places were added again, because neighbours that came since changed what
    they keep: of two that say the same neither has a margin."""
    frames = folder_of(tmp_path / "frames", scenes(6, 48, 64), [0, 4, 8, 12, 16, 300])
    every = frame_files(frames)
    with Localizer(tiny_host) as localizer:
        for first, some in (("middle", every[1:4]), ("one", every[2:3]), ("alone", every[5:])):
            tatvpr_edge.build_map(localizer, some, path := tmp_path / first)
            added = extend_map(localizer, frames, path)
            assert (added.places, added.known, added.neighbours) == (6 - len(some), len(some), 5)
            tags = [PlaceMap(path).tag(place) for place in range(6)]
            assert tags == [frame.name for frame in [*some, *(f for f in every if f not in some)]]
            assert extend_map(localizer, frames, path).places == 0


def test_pictures_of_unknown_order_stay_alone(tiny_host: Path, tmp_path: Path) -> None:
    pixels = scenes(30)
    frames = folder_of(tmp_path / "frames", pixels)
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
        assert np.array_equal(stored(made.path), int8_rows(alone(localizer, pixels))[0])
        assert made.neighbours == 0


def test_pictures_that_look_like_a_drive_are_one(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A window that slides along a wall of squares in any colour.
    squares = np.random.default_rng(0).integers(0, 256, (2, 26, 3)).astype(np.uint8)
    wall = np.kron(squares, np.ones((64, 64, 1), np.uint8))
    pixels = [np.ascontiguousarray(wall[:, 32 * at : 32 * at + 160]) for at in range(40)]
    frames = folder_of(tmp_path / "frames", pixels)
    out = str(tmp_path / "m.placemap")
    assert main(["map", "build", str(frames), "--artifact", str(tiny_host), "-o", out]) == 0
    assert "neighbours: 40 of 40 places keep a part of theirs" in capsys.readouterr().out
    with Localizer(tiny_host) as localizer:
        wanted = lent(alone(localizer, pixels), np.ones(39, np.bool_))
        assert np.array_equal(stored(Path(out)), int8_rows(wanted)[0])
        shuffled = [pixels[at] for at in np.random.default_rng(1).permutation(40)]
        mixed = folder_of(tmp_path / "mixed", shuffled)
        made = tatvpr_edge.build_map(localizer, mixed, tmp_path / "n.placemap")
        assert made.neighbours == 0


def test_places_in_no_order_are_hardly_ever_a_drive() -> None:
    taken = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(10, 80))
        rows = rng.normal(size=(count, 64)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        frames = [FrameFile(Path(f"{i}.png"), f"{i}.png") for i in range(count)]
        nowhere = Poses(np.full((count, 7), np.nan), "local", "none")
        taken += following(frames, nowhere, rows).any()
    assert taken <= 4


def test_what_is_added_together_is_a_drive_of_its_own(tiny_host: Path, tmp_path: Path) -> None:
    pixels = scenes(4)
    first = folder_of(tmp_path / "one", pixels[:2], [0, 1])
    second = folder_of(tmp_path / "two", pixels[2:], [2, 3])
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, first, tmp_path / "m")
        extend_map(localizer, second, made.path)
        own = alone(localizer, pixels)
        linked = np.array([True, False, True])
        assert np.array_equal(stored(made.path), int8_rows(lent(own, linked))[0])


def test_a_recording_is_a_drive_whether_it_knows_positions_or_not() -> None:
    def never() -> Any:
        raise AssertionError("no frame is read for that")

    frames = [RecordedFrame(f"{second}.0", Path("run.mp4"), load=never) for second in range(4)]
    poses = Poses(np.full((4, 7), np.nan), "local", "none")
    rows = np.eye(4, 8, dtype=np.float32)
    assert following(frames, poses, rows).tolist() == [True, True, True]
    poses.values[1:, :2] = [[0, 0], [9, 0], [20, 0]]  # the last is no neighbour, as is known
    assert following(frames, poses, rows).tolist() == [True, True, False]
    only = Poses(poses.values[:1], "local", "none")
    assert following(frames[:1], only, rows[:1]).tolist() == []


def test_a_recording_that_was_halted_is_two_drives() -> None:
    """Frames after a pause, after a clock that was set, or behind many that show nothing are no
    neighbours of those before; where all are far apart in time, that is how they were taken."""

    def linked(times_s: Sequence[float | None], numbers: Sequence[int] | None = None) -> Any:
        frames = recorded(times_s)
        nowhere = Poses(np.full((len(frames), 7), np.nan), "local", "none")
        return following(frames, nowhere, np.eye(len(frames), dtype=np.float32), numbers).tolist()

    assert linked([0, 0.5, 1, 301, 301.5]) == [True, True, False, True]
    assert linked([100, 100.5, 3, 3.5]) == [True, False, True]
    assert linked([0, 20, 40, 60]) == [True, True, True]
    assert linked([0, 0.5, 5.9, 6.4]) == [True, True, True]
    assert linked([None] * 4, [0, 1, 3, 6]) == [True, True, False]


def recorded(times_s: Sequence[float | None], of: str = "run.bag") -> list[RecordedFrame]:
    def never() -> Any:
        raise AssertionError("no frame is read for that")

    return [
        RecordedFrame(Path(of) / f"{number}", f"{number}", load=never, time_s=time_s)
        for number, time_s in enumerate(times_s)
    ]


def test_frames_of_two_places_in_one_list_are_two_drives() -> None:
    """Names are below the folder that was given, so that they are alike where several were."""
    frames = [*recorded([0, 0.5]), *recorded([0.7, 1], "other.bag")]
    nowhere = Poses(np.full((4, 7), np.nan), "local", "none")
    rows = np.eye(4, dtype=np.float32)
    assert following(frames, nowhere, rows).tolist() == [True, False, True]
    files = [FrameFile(Path(f"{folder}/1.png"), "1.png") for folder in ("a", "a", "b", "b")]
    near = Poses(np.full((4, 7), np.nan), "local", "names")
    near.values[:, :2] = 0
    assert following(files, near, rows).tolist() == [True, False, True]


def test_pictures_beyond_many_that_show_nothing_are_no_neighbours() -> None:
    frames, rows = walk(40)
    nowhere = Poses(np.full((40, 7), np.nan), "local", "none")
    assert following(frames, nowhere, rows).all()
    numbers = [*range(20), 21, *range(60, 79)]  # one was left out, and then 38
    wanted = [True] * 20 + [False] + [True] * 18
    assert following(frames, nowhere, rows, numbers).tolist() == wanted


def walk(count: int, seed: int = 0) -> tuple[list[FrameFile], Any]:
    """Frames of a drive without positions, and descriptors that change along it."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, 64), np.float32)
    for row in range(count):
        rows[row] = 0.9 * rows[row - 1] + 0.4 * rng.normal(size=64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [FrameFile(Path(f"{i:02}.png"), f"{i:02}.png") for i in range(count)], rows


@pytest.mark.parametrize("frame", ["local", "utm", "geographic"])
def test_places_in_no_order_are_no_neighbours_however_near(frame: str) -> None:
    """A room is smaller than what neighbours may be apart; pictures of it in any order are none."""
    metres = np.stack([np.arange(40) * 0.2, np.sin(np.arange(40) / 6)], axis=1)
    scale = {"local": 1.0, "utm": 1.0, "geographic": 1e-5}[frame]
    poses = Poses(np.full((40, 7), np.nan), frame, "poses.csv")
    poses.values[:, :2] = metres * scale + {"utm": 500_000}.get(frame, 0)
    frames, rows = walk(40)
    assert following(frames, poses, rows).all()
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(40)
        mixed = Poses(poses.values[order], frame, "poses.csv")
        assert not following(frames, mixed, rows[order]).any()
        # A camera's order is one, wherever its receiver says that it was.
        assert following(recorded(range(40)), mixed, rows).all()
    few = Poses(poses.values[[9, 1, 7, 3]], frame, "poses.csv")
    assert following(frames[:4], few, rows[:4]).all()


@pytest.mark.parametrize("cameras", [2, 3, 4, 8])
def test_cameras_that_take_turns_in_one_folder_are_no_neighbours(
    cameras: int, caplog: pytest.LogCaptureFixture
) -> None:
    """f01_front.png, f01_rear.png, f02_front.png ...: near, and each looks elsewhere."""
    drives = [walk(60, camera)[1] for camera in range(cameras)]
    rows = np.stack(drives, axis=1).reshape(60 * cameras, -1)
    poses = Poses(np.full((len(rows), 7), np.nan), "local", "poses.csv")
    poses.values[:, :2] = np.repeat(np.arange(60), cameras)[:, None] * [0.5, 0]
    frames = [FrameFile(Path(f"rig/{i:03}.png"), f"{i:03}.png") for i in range(len(rows))]
    assert not following(frames, poses, rows).any()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("rig: ") and f"as if {cameras} cameras (or drives) took turns" in said
    apart = [FrameFile(Path(f"{i % cameras}/{i:03}.png"), f"{i:03}.png") for i in range(len(rows))]
    order = sorted(range(len(rows)), key=lambda i: (i % cameras, i))
    alone = Poses(poses.values[order], "local", "poses.csv")
    found = following([apart[i] for i in order], alone, rows[order])
    assert found.sum() == 59 * cameras


def test_floors_above_each_other_are_no_neighbours() -> None:
    """A robot leaves a lift: the position is the same, and the altitude is not."""
    frames = [FrameFile(Path(f"{i}.png"), f"{i}.png") for i in range(5)]
    poses = Poses(np.full((5, 7), np.nan), "local", "poses.csv")
    poses.values[:, :3] = [[0, 0, 0], [1, 0, 4], [1, 0, 16], [1, 0, np.nan], [1, 0, 0]]
    rows = np.eye(5, 8, dtype=np.float32)
    assert following(frames, poses, rows).tolist() == [True, False, True, True]


def test_who_looks_elsewhere_is_no_neighbour() -> None:
    frames = [FrameFile(Path(f"{i}.png"), f"{i}.png") for i in range(5)]
    poses = Poses(np.zeros((5, 7)), "local", "poses.csv")
    for row, yaw_deg in enumerate((0, 59, 120, 179)):
        half = np.radians(yaw_deg) / 2
        poses.values[row, 3:] = [0, 0, np.sin(half), np.cos(half)]
    poses.values[2, 3:] *= -1  # the same orientation
    poses.values[4, 3:] = np.nan
    rows = np.eye(5, 8, dtype=np.float32)
    assert following(frames, poses, rows).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("frame", "near", "far"),
    [
        ("local", (9.9, 0), (10.1, 0)),
        ("utm", (500_049.0, 0), (500_051.0, 0)),
        ("geographic", (0, 0.00044), (0, 0.00046)),  # 49 and 51 metres
    ],
)
def test_neighbours_are_near_in_every_pose_frame(
    frame: str, near: tuple[float, float], far: tuple[float, float]
) -> None:
    start = (500_000.0, 0.0) if frame == "utm" else (0.0, 0.0)
    for there, linked in ((near, True), (far, False)):
        poses = np.full((2, 7), np.nan)
        poses[:, :2] = [start, there]
        assert neighbouring(["a", "a"], poses, frame).tolist() == [linked]
        assert not neighbouring(["a", "b"], poses, frame).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_every_place_keeps_its_own_part_and_unit_length(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    linked = rng.random(count - 1) < 0.6
    made = lent(rows, linked)
    assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    for place in range(count):
        total = rows[place].astype(np.float64)
        for beside, link in ((place - 1, place - 1), (place + 1, place)):
            if 0 <= beside < count and linked[link]:
                total = total + PART * rows[beside]
        assert made[place] == pytest.approx(total / np.linalg.norm(total), abs=1e-5)


def test_a_map_says_that_its_places_lean_on_each_other(tiny_host: Path, tmp_path: Path) -> None:
    pixels = scenes(3)
    frames = folder_of(tmp_path / "frames", pixels, [0, 1, 2])
    with Localizer(tiny_host) as localizer:
        leaning = tatvpr_edge.build_map(localizer, frames, tmp_path / "m").path
        single = tatvpr_edge.build_map(localizer, frames, tmp_path / "s", views=False).path
        assert PlaceMap(leaning).info.neighbours and not PlaceMap(single).info.neighbours
        MapWriter(tmp_path / "w", localizer, like=leaning).close()
        assert not PlaceMap(tmp_path / "w").info.neighbours
        extend_map(localizer, frames, tmp_path / "w", views=False)
        assert not PlaceMap(tmp_path / "w").info.neighbours
        made = extend_map(localizer, frames, tmp_path / "w")
        assert made.neighbours == 3 and PlaceMap(tmp_path / "w").info.neighbours
        assert np.array_equal(stored(made.path), np.concatenate([stored(single), stored(leaning)]))
        compact(made.path)
        assert len(PlaceMap(made.path)) == 6 and PlaceMap(made.path).info.neighbours
    merge_maps([single, leaning], tmp_path / "both", same_frame=True)
    assert PlaceMap(tmp_path / "both").info.neighbours
    # The flag is not part of what a reader must know: without it the file is as good.
    data = bytearray(leaning.read_bytes())
    assert data[28] == 1
    data[28] = 0
    data[188:192] = bytes(4)
    header = int.from_bytes(data[12:16], "little")
    data[188:192] = zlib.crc32(bytes(data[:header])).to_bytes(4, "little")
    (tmp_path / "plain").write_bytes(data)
    assert not PlaceMap(tmp_path / "plain").info.neighbours


def test_a_drive_is_as_redundant_as_its_frames(tiny_host: Path, tmp_path: Path) -> None:
    squares = np.random.default_rng(3).integers(0, 256, (2, 22, 3)).astype(np.uint8)
    wall = np.kron(squares, np.ones((64, 64, 1), np.uint8))
    pixels = [np.ascontiguousarray(wall[:, 16 * at : 16 * at + 160]) for at in range(60)]
    frames = folder_of(tmp_path / "frames", pixels, list(range(60)))
    found = []
    with Localizer(tiny_host) as localizer:
        for views in (True, False):
            made = tatvpr_edge.build_map(localizer, frames, tmp_path / str(views), views=views)
            stats = map_stats(made.path)
            assert stats.redundant is not None and stats.step_score is not None
            found.append((stats.redundant, stats.step_score))
    assert found[0][1] > found[1][1] + 0.02
    assert found[0][0] == pytest.approx(found[1][0], abs=0.25)


def test_neighbours_that_cancel_a_place_out_are_none() -> None:
    one = np.array([[1.0, 0.0]], np.float32)
    rows = np.concatenate([-one / (2 * np.float32(PART)), one, -one / (2 * np.float32(PART))])
    assert np.array_equal(lent(rows, np.array([True, True]))[1], one[0])


def test_evaluation_judges_the_map_that_would_be_built(
    monkeypatch: pytest.MonkeyPatch, tiny_host: Path, tmp_path: Path
) -> None:
    pixels = scenes(7)
    images = [Image.fromarray(frame) for frame in pixels]
    linked = np.array([True, True, False, True, True, True])
    trial = Trial(images, images, np.eye(7, dtype=np.bool_), linked=linked)
    gray = Gray32()

    def best(chunk: int, views: bool = True) -> Any:
        monkeypatch.setattr(run, "_CHUNK", chunk)
        result = run.evaluate([gray], iter([trial]), timed=False, views=views)["gray32"]
        return result.matched["float"][1.0].scores[0]

    whole = best(100)
    for chunk in (1, 2, 3, 7):  # pieces of a map know their neighbours in the next piece
        np.testing.assert_allclose(best(chunk), whole, atol=1e-6)
    plain = run.evaluate([gray], iter([Trial(images, images, trial.right)]), timed=False)
    assert not np.allclose(plain["gray32"].matched["float"][1.0].scores[0], whole, atol=1e-3)
    assert not np.allclose(best(100, views=False), whole, atol=1e-3)

    frames = folder_of(tmp_path / "frames", pixels, [0, 1, 2, 30, 31, 32, 33])
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
        judged = compare_folders(localizer, frames, frames, (1.0,)).map.descriptors[1.0]
        assert np.array_equal(int8_rows(judged)[0], stored(made.path))


def test_protocols_know_their_drives(tmp_path: Path) -> None:
    for name, east in (("database", (0, 40, 100)), ("queries", (1,))):
        (tmp_path / name).mkdir()
        for x in east:
            picture = tmp_path / name / f"@{500_000 + x}.00@{4_000_000}.00@{name}@.png"
            Image.fromarray(scenes(1)[0]).save(picture)
    (trial,) = utm(tmp_path)
    assert trial.linked is not None and trial.linked.tolist() == [True, False]


def test_prepared_sets_know_where_cameras_look(tmp_path: Path) -> None:
    """As map build does, by the same table."""
    for name in ("database", "queries"):
        folder_of(tmp_path / name, scenes(4), [0, 1, 2, 3])
        rows = zip(range(4), (0, 0, 0, 50), (0, 30, 120, 120), strict=True)
        lines = [f"{row:02}.png,{row},0,{z},{yaw}" for row, z, yaw in rows]
        (tmp_path / name / "poses.csv").write_text("\n".join(["name,x,y,z,yaw_deg", *lines]) + "\n")
    (trial,) = utm(tmp_path)
    assert trial.linked is not None and trial.linked.tolist() == [True, False, False]


def test_clips_of_the_tower_are_drives(tmp_path: Path) -> None:
    rows = ["path,split,floor,clip,frame"]
    for clip in ("a", "b"):
        for frame in range(9):
            name = f"{clip}{frame}.png"
            Image.fromarray(scenes(1)[0]).save(tmp_path / name)
            rows.append(f"{name},val,floor1,{clip},{frame * (3 if frame > 4 else 1)}")
    (tmp_path / "frames.csv").write_text("\n".join(rows) + "\n")
    trial = next(iter(tower_shift(tmp_path)))
    # Frames 0, 4 and 24 of either clip: 4 apart is near, 20 is not, and clips end.
    assert trial.linked is not None
    assert trial.linked.tolist() == [True, False, False, True, False]
    assert len(list(pairwise(trial.gallery))) == len(trial.linked)
