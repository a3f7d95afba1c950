"""A robot that drives through a map: followed, lost, found again; two robots; maps that grow."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.mapping import build_map, calibrate_map
from tatvpr_edge.runtime import Localizer, MapWriter, Match, PlaceMap, UsageError

METRES, STEP_PX, WIDTH, HEIGHT = 120, 8, 96, 72
WITHIN_M = 2.0


def wall(seed: int) -> NDArray[np.float32]:
    """A long wall of blobs, float32 [HEIGHT, metres, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, METRES // 2 + 14, 3), np.uint8)
    size = ((METRES + 28) * STEP_PX, HEIGHT)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR), np.float32)


def seen(pixels: NDArray[np.float32], metre: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera sees there on a day of its own: light, noise, a little off."""
    left = int(metre * STEP_PX) + int(rng.integers(0, 4))
    frame = pixels[:, left : left + WIDTH] * rng.uniform(0.8, 1.0)
    frame = frame + rng.normal(0, 6, frame.shape)
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def place_wall() -> NDArray[np.float32]:
    return wall(3)


def folder_of(path: Path, pixels: NDArray[np.float32], seed: int, step: float) -> Path:
    """A drive along the wall as files with positions."""
    rng = np.random.default_rng(seed)
    path.mkdir()
    rows = ["name,x,y"]
    for index, metre in enumerate(np.arange(0, METRES, step)):
        name = f"{index:04}.png"
        Image.fromarray(seen(pixels, metre, rng)).save(path / name)
        rows.append(f"{name},{metre},0")
    (path / "poses.csv").write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def driven(
    tiny_host: Path, place_wall: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A map of the wall, a metre a place, calibrated by two drives of other days."""
    folder = tmp_path_factory.mktemp("wall")
    path = folder / "wall.placemap"
    days = folder / "days"
    days.mkdir()
    with Localizer(tiny_host) as localizer:
        # One view a place: a model without training tells metres apart by how the blobs lie in the
        # frame alone, and the corners of one frame are the middles of its neighbours.
        frames = folder_of(folder / "map", place_wall, 1, 1.0)
        build_map(localizer, frames, path, views=False)
        rows = ["name,x,y"]
        for day in ("a", "b"):
            made = folder_of(days / day, place_wall, ord(day), 0.7)
            table = (made / "poses.csv").read_text().splitlines()[1:]
            rows += [f"{day}/{row}" for row in table]
            (made / "poses.csv").unlink()
        (days / "poses.csv").write_text("\n".join(rows))
        done = calibrate_map(
            localizer, path, days, within_m=WITHIN_M, precision=0.9, ks=(1.0,), sequence=5
        )
    assert done.bands[0].sequence is not None and done.bands[0].sequence.reached
    return path


def drive(
    localizer: Localizer, pixels: NDArray[np.float32], metres: NDArray[np.float64], seed: int
) -> list[Match]:
    rng = np.random.default_rng(seed)
    return [localizer.query(seen(pixels, metre, rng)) for metre in metres]


def right(match: Match, metre: float, within_m: float = WITHIN_M) -> bool:
    return match.pose is not None and abs(match.pose[0] - metre) <= within_m


def test_a_drive_is_followed_better_than_frame_by_frame(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    metres = np.arange(5, 100, 0.9)
    shares = {}
    for frames in (1, 5):
        with Localizer(tiny_host, driven, k=1.0, sequence=frames) as localizer:
            matches = drive(localizer, place_wall, metres, 9)
        accepted = [m.accepted for m in matches]
        good = [right(m, at) for m, at in zip(matches, metres, strict=True)]
        taken = [g for g, a in zip(good, accepted, strict=True) if a]
        shares[frames] = (np.mean(good), np.mean(accepted))
        assert not taken or np.mean(taken) >= 0.85
    assert shares[5][0] >= shares[1][0] and shares[5][1] > shares[1][1]
    assert {m.state for m in matches} <= {"found", "moved", "here", "lost"}
    assert matches[-1].frames == 5 and matches[-1].confidence is not None


def test_a_robot_that_is_carried_away_is_lost_and_then_found(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    with Localizer(tiny_host, driven, k=1.0, sequence=5) as localizer:
        before = drive(localizer, place_wall, np.arange(10, 40, 1.0), 5)
        strange = drive(localizer, wall(99), np.arange(10, 30, 1.0), 6)
        again = drive(localizer, place_wall, np.arange(80, 110, 1.0), 7)
    assert any(m.accepted for m in before) and before[-1].state in ("moved", "here")
    assert strange[-1].state == "lost" and strange[-1].accepted is False
    assert "found" in {m.state for m in again}
    assert right(again[-1], 109.0, 4.0) and again[-1].state in ("moved", "here")
    assert sum(bool(m.accepted) for m in again) > 15


def standing(
    pixels: NDArray[np.float32], metre: float, seed: int, count: int
) -> list[NDArray[np.uint8]]:
    """Frames of a camera that stands there: each has its own noise."""
    rng = np.random.default_rng(seed)
    frame = seen(pixels, metre, rng).astype(np.float32)
    made = [frame + rng.normal(0, 1, frame.shape) for _ in range(count)]
    return [np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in made]


@pytest.mark.parametrize("odometry", [None, 0.0, (0.0, 0.0, 0.0)])
def test_a_robot_that_stands_is_judged_by_what_it_saw(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32], odometry: Any
) -> None:
    """Twelve frames of one view are one frame: where the map lacks the place, they were judged as a
    whole sequence; on its way, the robot keeps its answer."""
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        tracker = localizer.track(5)
        strange = [tracker.query(f, odometry=odometry) for f in standing(wall(99), 20, 1, 12)]
        assert {m.frames for m in strange} == {1}
        assert len({(m.place, m.accepted, m.state) for m in strange}) == 1
        tracker.restart()
        rng = np.random.default_rng(5)
        for metre in range(10, 30):
            last = tracker.query(seen(place_wall, metre, rng))
        frames = standing(place_wall, 29, 6, 12)
        stands = [tracker.query(frame, odometry=odometry) for frame in frames][1:]
        assert last.accepted and all(m.accepted for m in stands)
        assert {(m.place, m.frames, m.state) for m in stands} == {(stands[0].place, 5, "here")}


@pytest.mark.parametrize("by_poses", [False, True])
def test_a_robot_that_rocks_goes_nowhere(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32], by_poses: bool
) -> None:
    """Each way was added up as metres forwards, and so was the noise of odometry that stands."""
    places = [(x, 0.1, 0.0, 0.0, 0.0, 0.0, 1.0) for x in (0.0, 0.3)]
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        tracker, said = localizer.track(5), []
        for index, frame in enumerate(standing(place_wall, 29, 6, 12)):
            before, now = places[index % 2], places[(index + 1) % 2]
            moved: Any = (before, now) if by_poses else (now[0] - before[0], 0.0, 0.0)
            said.append(tracker.query(frame, odometry=moved).frames)
        assert said == [1] * 12


def test_a_drive_that_stands_at_every_frame_teaches_no_more(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32], tmp_path: Path
) -> None:
    """As a recording at thirty frames a second: each frame was a sequence's, over and over."""
    learned = []
    for times in (1, 4):
        day, rng = tmp_path / str(times), np.random.default_rng(8)
        day.mkdir()
        rows = ["name,x,y"]
        for index, metre in enumerate(np.arange(0, METRES, 0.7)):
            frame = Image.fromarray(seen(place_wall, metre, rng))
            for again in range(times):
                frame.save(day / f"{index:04}_{again}.png")
                rows.append(f"{index:04}_{again}.png,{metre},0")
        (day / "poses.csv").write_text("\n".join(rows))
        map_path = tmp_path / f"{times}.placemap"
        map_path.write_bytes(driven.read_bytes())
        with Localizer(tiny_host) as localizer:
            done = calibrate_map(
                localizer, map_path, day, within_m=WITHIN_M, precision=0.9, ks=(1.0,), sequence=5
            )
        assert done.bands[0].sequence is not None
        learned.append(done.bands[0].sequence.answers)
    assert learned[1] <= 1.1 * learned[0], learned


def test_blank_black_and_covered_frames_are_never_accepted_nor_move_the_path(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    across = np.linspace(-1, 1, WIDTH)
    glow = 60 * np.exp(-(across[None] ** 2) - np.linspace(-1, 1, HEIGHT)[:, None] ** 2)
    noise = np.random.default_rng(0).normal(0, 8, (HEIGHT, WIDTH))
    dark = [
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
        np.repeat(np.clip(glow + noise, 0, 255)[:, :, None], 3, axis=2).astype(np.uint8),
    ]
    with Localizer(tiny_host, driven, k=1.0, sequence=5) as localizer:
        assert [localizer.query(frame).place for frame in dark] == [-1, -1, -1]
        last = drive(localizer, place_wall, np.arange(10, 30, 1.0), 5)[-1]
        hidden = [localizer.query(frame) for frame in dark]
        assert {m.place for m in hidden} == {last.place}
        assert not any(m.accepted for m in hidden)
        assert all("no structure" in (m.reason or "") for m in hidden)
        after = drive(localizer, place_wall, np.arange(33, 40, 1.0), 8)
    assert right(after[-1], 39.0, 4.0)


def test_two_robots_have_a_path_each(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    ways = {"a": np.arange(10, 40, 1.0), "b": np.arange(100, 70, -1.0)}
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        trackers = {name: localizer.track() for name in ways}
        assert {t.frames for t in trackers.values()} == {5}  # as the map is calibrated for
        answers: dict[str, list[Match]] = {name: [] for name in ways}

        def follow(name: str) -> None:
            rng = np.random.default_rng(ord(name))
            for metre in ways[name]:
                frame = seen(place_wall, metre, rng)
                answers[name].append(trackers[name].query(frame, odometry=1.0))

        threads = [threading.Thread(target=follow, args=(name,)) for name in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, metres in ways.items():
            good = [right(m, at) for m, at in zip(answers[name], metres, strict=True)]
            assert np.mean(good[5:]) > 0.8
        trackers["a"].restart()
        assert trackers["a"].query(seen(place_wall, 60, np.random.default_rng(1))).frames == 1


def test_each_map_that_is_asked_has_a_path_of_its_own(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    """One query of another map began the path in the set one anew, without a word."""
    rng = np.random.default_rng(1)

    def frame() -> NDArray[np.uint8]:
        return seen(place_wall, float(rng.integers(METRES)), rng)

    with Localizer(tiny_host, driven, k=1.0, sequence=5) as localizer:
        floors = [localizer.map, *(localizer.open_map(driven) for _ in range(2))]
        tracker = localizer.track(5)
        for seat in (localizer, tracker):
            asked = [seat.query(frame(), map=floors[n]).frames for n in (0, 1, 2, 0, 1, 1, 2)]
            assert asked == [1, 1, 1, 2, 2, 3, 2]
            assert seat.query(frame()).frames == 3
        tracker.restart()
        asked = [tracker.query(frame(), map=floor).frames for floor in (None, *floors)]
        assert asked == [1, 2, 1, 1]


def test_a_tracker_is_asked_all_that_its_localizer_is(
    tiny_host: Path, place_wall: NDArray[np.float32], tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    frames = [seen(place_wall, metre, rng) for metre in range(0, 60, 6)]
    with Localizer(tiny_host, k=1.0) as localizer:
        for name, count in (("few", 3), ("all", len(frames))):
            with MapWriter(tmp_path / name, localizer) as writer:
                for index, frame in enumerate(frames[:count]):
                    writer.add(frame, (6.0 * index, 0.0), time_s=1000.0 + index)
        localizer.map = tmp_path / "all"
        few = localizer.open_map(tmp_path / "few")
        plain = replace(localizer.track().query(frames[-1]), latency_ms=0.0)
        for asked in (
            {"bgr": True},
            {"top": 3},
            {"near": (6.0, 0.0), "radius": 10.0},
            {"exclude_last": 2},
            {"exclude_last": "5s", "time_s": 1010.0},
            {"map": few},
        ):
            one = localizer.track().query(frames[-1], **asked)  # type: ignore[arg-type]
            other = localizer.query(frames[-1], **asked, tracker=localizer.track())  # type: ignore[arg-type]
            assert replace(one, latency_ms=0.0) == replace(other, latency_ms=0.0) != plain, asked


def test_a_path_answers_with_as_many_places_as_were_asked_for(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    """Where a frame is like places far from the path, too: the path's own place comes first."""
    rng = np.random.default_rng(5)
    with Localizer(tiny_host, driven, k=1.0, sequence=5) as localizer:
        for metre in range(10, 30):
            match = localizer.query(seen(place_wall, metre, rng), odometry=1.0, top=3)
            assert len({one.place for one in match.candidates}) == len(match.candidates) == 3
        match = localizer.query(seen(place_wall, 90, rng), odometry=1.0, top=3)
    first, *others = (one.place for one in match.candidates)
    assert match.place == first and right(match, 30.0)
    assert len(set(others)) == len(others) == 2 and min(others) > 60


def test_where_an_answer_was_looked_for_changes_nothing_of_the_path(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    """Evidence is gathered everywhere."""
    rng = np.random.default_rng(5)
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        plain, asked = localizer.track(), localizer.track()
        for metre in range(10, 20):
            frame = seen(place_wall, metre, rng)
            one = plain.query(frame)
            other = asked.query(frame, near=(90.0, 0.0), radius=5.0)
            assert other.pose is not None and abs(other.pose[0] - 90) <= 5
        frame = seen(place_wall, 20, rng)
        one, other = plain.query(frame), asked.query(frame)
        assert right(one, 20.0) and (one.place, one.margin) == (other.place, other.margin)


@pytest.mark.parametrize("number", [0.0, np.nan, np.inf])
def test_a_descriptor_of_nothing_leaves_a_path_its_last_answer(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32], number: float
) -> None:
    """As an engine gives it whose numbers ran over; the path goes on with the next."""
    rng = np.random.default_rng(5)
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        tracker, place_map = localizer.track(), PlaceMap(driven, engine=localizer.engine)
        for metre in range(10, 30):
            frame = localizer.describe(seen(place_wall, metre, rng))
            last = place_map.follow(tracker.follow, frame, 1.0)
        nothing = np.full_like(frame, number)
        blind = place_map.follow(tracker.follow, nothing, 1.0)
        again = place_map.follow(tracker.follow, frame, 1.0)
    assert [one.candidates[0].place for one in (blind, again)] == [last.candidates[0].place] * 2
    assert (blind.candidates[0].score, blind.accepted) == (-1.0, False)
    assert last.tracked and again.tracked and again.tracked.frames == last.tracked.frames == 5


def test_single_frames_of_the_same_localizer_stay_what_they_were(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    frame = seen(place_wall, 50, np.random.default_rng(4))
    with Localizer(tiny_host, driven, k=1.0) as localizer:
        alone = localizer.query(frame)
        localizer.track().query(frame)
        again = localizer.query(frame)
    assert (again.place, again.score, again.accepted) == (alone.place, alone.score, alone.accepted)
    assert alone.state is None and alone.frames == 1


def test_a_map_that_grows_is_followed_and_is_not_judged_until_calibrated(
    tiny_host: Path,
    place_wall: NDArray[np.float32],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, rng = tmp_path / "grown.placemap", np.random.default_rng(2)
    with Localizer(tiny_host, k=1.0, sequence=4) as localizer:
        MapWriter(path, localizer).close()
        localizer.map = path  # type: ignore[assignment]
        for metre in range(60):
            localizer.add(seen(place_wall, metre, rng), (metre, 0.0))
        with caplog.at_level(logging.WARNING, "tatvpr_edge"):
            first = [localizer.query(seen(place_wall, metre, rng)) for metre in range(20, 30)]
        assert {(m.accepted, m.state, m.confidence) for m in first} == {(None, None, None)}
        said = [r.getMessage() for r in caplog.records if "sequences of 4 frames" in r.getMessage()]
        # A calibrated map keeps what it has where no drive is named: the line names one.
        assert len(said) == 1 and f"map calibrate {path} DRIVE --sequence 4" in said[0]
        for metre in range(60, 110):
            localizer.add(seen(place_wall, metre, rng), (metre, 0.0))
            if metre >= 90:
                last = localizer.query(seen(place_wall, metre, rng))
        assert right(last, 109.0) and last.frames == 4
        near = localizer.query(seen(place_wall, 109, rng), near=(20.0, 0.0), radius=5.0)
        assert near.pose is not None and abs(near.pose[0] - 20) <= 5
        old = localizer.query(seen(place_wall, 109, rng), exclude_last=30)
        assert old.place < 80
        left = localizer.query(seen(place_wall, 109, rng), exclude_last=10**6)
        assert (left.place, left.score, left.accepted, left.candidates) == (-1, -1.0, False, ())
        assert localizer.query(np.zeros((48, 64, 3), np.uint8), exclude_last=90).place == -1
        localizer.query(seen(place_wall, 109, rng))
        localizer.map.prune(60)  # type: ignore[union-attr]
        assert localizer.query(seen(place_wall, 50, rng)).frames == 1  # other numbers of places


def test_turns_tell_two_ways_apart_that_look_alike_and_are_as_long(
    tiny_host: Path, place_wall: NDArray[np.float32], tmp_path: Path
) -> None:
    """The same wall along a way that winds left and along one that winds right; the same frames are
    driven past twice, as (ahead, left, turn) and as two poses say it."""
    path, bend_rad, drives = tmp_path / "twins.placemap", 0.15, []
    with Localizer(tiny_host, k=1.0) as localizer:
        MapWriter(path, localizer).close()
        for side in (1, -1):
            yaw = side * bend_rad * np.arange(60)
            steps = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
            poses = np.zeros((60, 7))
            poses[:, :2] = np.cumsum(steps, axis=0) + np.array([0, 100 * side])
            poses[:, 5], poses[:, 6] = np.sin(yaw / 2), np.cos(yaw / 2)
            localizer.map = path  # type: ignore[assignment]  # a drive of its own
            rng = np.random.default_rng(11 + side)
            for metre, pose in enumerate(poses):
                localizer.add(seen(place_wall, metre, rng), pose, f"{side}")
            drives.append(poses)
        frames = [seen(place_wall, metre, np.random.default_rng(metre)) for metre in range(10, 30)]

        def answers(told: list[object]) -> list[str]:
            tracker = localizer.track(5)
            said = zip(frames, told, strict=True)
            return [tracker.query(frame, odometry=moved).tag for frame, moved in said]

        by_turns = {}
        for side, poses in zip((1, -1), drives, strict=True):
            moved = [(1.0, 0.0, side * bend_rad)] * len(frames)
            by_turns[side] = answers(list(moved))
            assert by_turns[side][5:] == [f"{side}"] * (len(frames) - 5)
            steps = [(poses[metre - 1], poses[metre]) for metre in range(10, 30)]
            assert answers(list(steps)) == by_turns[side]
        assert by_turns[1] != by_turns[-1]


def test_what_belongs_to_a_sequence_is_refused_without_one(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32]
) -> None:
    frame = seen(place_wall, 50, np.random.default_rng(4))
    with Localizer(tiny_host, driven) as localizer:
        with pytest.raises(UsageError, match="odometry belongs to a sequence"):
            localizer.query(frame, odometry=1.0)
        with pytest.raises(UsageError, match="sequence is 0"):
            localizer.track(0)
        wrongs: list[object] = ["1m", float("nan"), float("inf"), True, (), (1.0,), (1.0, 2.0)]
        wrongs += [(1.0, 0.0, float("nan")), (1.0, 0.0, 0.1, 0.0), ((0.0,) * 7, (0.0, 1.0))]
        # A driver that knows no orientation sends zeros: that is not "it did not turn".
        wrongs += [((0.0,) * 7, (1.0, *(0.0,) * 6)), ((0.0,) * 6 + (1.0,), (1.0, *(0.0,) * 5, 2.0))]
        for wrong in wrongs:
            with pytest.raises(UsageError, match="metres that the camera moved"):
                localizer.track().query(frame, odometry=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"sequence is 2\.5"):
        Localizer(tiny_host, sequence=2.5)  # type: ignore[arg-type]


def test_a_localizer_that_travels_keeps_its_sequence(tiny_host: Path, driven: Path) -> None:
    with Localizer(tiny_host, driven, sequence=3) as localizer:
        copy = pickle.loads(pickle.dumps(localizer))
    with copy:
        assert copy.track().frames == 3


def test_the_calibration_of_sequences_is_stored_beside_the_single_frame_s(driven: Path) -> None:
    judged = PlaceMap(driven).info.bands[0].calibration
    assert judged is not None and judged.sequence is not None
    assert judged.sequence.frames == 5 and judged.sequence.recall > judged.recall
    assert driven.read_bytes()[24] == 5  # a reader that knows nothing of sequences refuses


def test_the_example_follows_a_drive(
    tiny_host: Path, driven: Path, place_wall: NDArray[np.float32], project_root: Path
) -> None:
    frames = driven.parent / "another day"
    folder_of(frames, place_wall, 77, 1.0)
    example = [sys.executable, project_root / "examples" / "follow.py", tiny_host]
    spoken: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    (frames / "0000a.jpg").write_bytes(b"no picture")
    done = subprocess.run([*example, driven, frames, "1.0"], **spoken)
    assert done.returncode == 0 and done.stderr.startswith("left out: ")
    wrong = subprocess.run([*example, driven, frames, "far"], **spoken)
    assert wrong.returncode == 2 and "argument metres: invalid float value: 'far'" in wrong.stderr
    missing = subprocess.run([*example, "nowhere.placemap", frames], **spoken)
    assert missing.returncode == 1 and missing.stderr.startswith("error: cannot read the map")
    lines = done.stdout.splitlines()
    assert len(lines) == METRES
    said = {state for state in ("found", "moved", "here", "lost") if f"({state}," in done.stdout}
    assert {"found", "moved"} <= said and any(line.endswith(", accepted)") for line in lines)
