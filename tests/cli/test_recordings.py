"""Maps and queries from bags and videos, as a robot's owner has them: nothing of ROS installed."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.artifacts import scenes
from support.recordings import BagWriter, plain_frames, rgb, write_video
from tatvpr_edge import build_map
from tatvpr_edge.mapping import Picking, frames_of
from tatvpr_edge.mapping.recordings.frames import RecordedFrame
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.spec.errors import DataError, FrameError, UsageError

Run = Callable[..., subprocess.CompletedProcess[str]]


KINDS = ("bag", "mcap", "db3")
IMAGES, ODOM = "/camera/image_raw", "/odom"
#: The drive begins then, goes 6 m/s along x, and turns by a radian a second.
START_S, SPEED_M_S = 1_700_000_000.0, 6.0


def drive(path: Path, kind: str, poses: str = "Odometry") -> Path:
    """Ten scenes, one each 0.2 s; poses from 0.1 s to 1.7 s, so that two frames have none."""
    with BagWriter(path, kind) as bag:
        for index, frame in enumerate(scenes(10)):
            at_s = START_S + 0.2 * index
            bag.add(IMAGES, bag.rgb(frame, at_s), at_s + 0.01)
        for step in range(5):
            t = 0.1 + 0.4 * step
            bag.add(ODOM, bag.placed(poses, START_S + t, SPEED_M_S * t, 1.0, t), START_S + t)
    return path


@pytest.fixture(scope="session")
def drives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bags")
    return {kind: drive(folder / f"run.{kind}", kind) for kind in KINDS}


def storage(path: Path) -> Path:
    """The file that holds the messages of a bag."""
    return path if path.is_file() else next(p for p in path.iterdir() if p.suffix != ".yaml")


# ---- maps and queries ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_becomes_a_map_with_poses_and_times_and_is_found_again(
    tatvpr: Run, drives: dict[str, Path], kind: str, tiny_host: Path
) -> None:
    options = ("--topic", IMAGES, "--poses-topic", ODOM, "--artifact", tiny_host, "-o", "m")
    done = tatvpr("map", "build", drives[kind], *options, "--json")
    document = json.loads(done.stdout)
    assert (document["places"], document["poses_from"], document["unplaced"]) == (8, ODOM, 0)
    place_map = PlaceMap("m")
    poses = np.array([place_map.pose(place) for place in range(8)])
    times = 0.2 * np.arange(1, 9)
    assert np.allclose(poses[:, 0], SPEED_M_S * times, atol=1e-5)
    assert np.allclose(poses[:, 1:3], (1.0, 0.5))
    assert np.allclose(2 * np.arctan2(poses[:, 5], poses[:, 6]), times, atol=1e-5)
    seen_s = place_map.stored.base.moments["time_us"] / 1e6
    assert np.allclose(seen_s, START_S + times, atol=1e-5)
    asked = tatvpr("query", drives[kind], "--every", 0, "--artifact", tiny_host, "--map", "m",
                   "--k", "1", "--json")  # fmt: skip
    answers = json.loads(asked.stdout)
    assert len(answers) == 10
    assert [answer["place"] for answer in answers[1:9]] == list(range(8))
    assert [answer["tag"] for answer in answers[1:9]] == [
        Path(answer["frame"]).name for answer in answers[1:9]
    ]


def test_an_output_that_exists_is_told_before_a_recording_is_read(
    tatvpr: Run, tiny_host: Path, tmp_path: Path
) -> None:
    """A drive of an hour was read for its times first."""
    (tmp_path / "long.mcap").write_bytes(b"would be read for minutes")
    (tmp_path / "m").touch()
    line = ("map", "build", "long.mcap", "--artifact", tiny_host, "-o", "m")
    assert "m exists already" in tatvpr(*line, status=1).stderr


def test_frames_are_taken_by_distance_or_by_time(drives: dict[str, Path]) -> None:
    def taken(**options: float | str) -> list[int]:
        frames = frames_of(drives["mcap"], Picking(**options))  # type: ignore[arg-type]
        return [round((float(frame.name) - START_S) / 0.2) for frame in frames]

    assert taken() == [0, 3, 6, 9]
    assert taken(every_s=0.4) == [0, 2, 4, 6, 8]
    assert taken(every_s=0) == list(range(10))
    assert taken(poses_topic=ODOM) == list(range(1, 9))
    assert taken(poses_topic=ODOM, distance_m=1.9) == [1, 3, 5, 7]
    assert taken(poses_topic=ODOM, every_s=0.6) == [0, 3, 6, 9]


def test_an_image_that_comes_late_is_no_clock_that_was_set_back(tmp_path: Path) -> None:
    """It was taken, a moment before the frame that was taken last."""
    path = tmp_path / "late.mcap"
    with BagWriter(path, "mcap") as bag:
        for number, tenth in enumerate([0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10]):
            image = bag.rgb(scenes(1)[0], START_S + tenth / 10)
            bag.add(IMAGES, image, START_S + number / 10)
    taken = [
        [round(10 * (float(frame.name) - START_S)) for frame in frames_of(path, picking)]
        for picking in (None, Picking(every_s=0))
    ]
    assert taken == [[0, 5, 10], [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10]]


def test_a_frame_outside_the_poses_times_has_no_position_and_is_said_and_counted(
    tatvpr: Run, drives: dict[str, Path], tiny_host: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--poses-topic", ODOM, "--every", "0s", "--artifact", tiny_host, "-o", "m")
    done = tatvpr("map", "build", drives["bag"], *options)
    assert "2 of 10 images lie outside the times of /odom" in caplog.text
    assert "2 of 10 frames have no position" in done.stderr
    place_map = PlaceMap("m")
    assert [n for n in range(10) if np.isnan(place_map.pose(n)[0])] == [0, 9]


@pytest.mark.parametrize("poses", ["PoseStamped", "PoseWithCovarianceStamped"])
def test_other_messages_of_poses_say_the_same(
    tmp_path: Path, drives: dict[str, Path], poses: str
) -> None:
    picking = Picking(poses_topic=ODOM)
    by_odometry, others = (
        [frame.pose for frame in frames_of(path, picking) if isinstance(frame, RecordedFrame)]
        for path in (drives["db3"], drive(tmp_path / "other.db3", "db3", poses))
    )
    assert by_odometry == others and None not in others


def test_a_receivers_degrees_make_a_geographic_map(tmp_path: Path, tiny_host: Path) -> None:
    path = tmp_path / "fix.bag"
    with BagWriter(path, "bag") as bag:
        for index, frame in enumerate(scenes(5)):
            at_s = START_S + index
            bag.add(IMAGES, bag.rgb(frame, at_s), at_s)
            # Across the 180th meridian; the third has no fix.
            longitude = (179.9998 + 0.0001 * index + 180) % 360 - 180
            bag.add("/fix", bag.fix(at_s, -16.5, longitude, -(index == 2)), at_s)
    with Localizer(tiny_host) as localizer:
        picking = Picking(poses_topic="/fix", distance_m=5.0)
        made = build_map(localizer, path, tmp_path / "m", picking=picking)
    assert (made.places, made.pose_frame, made.poses_from) == (5, "geographic", "/fix")
    place_map = PlaceMap(tmp_path / "m")
    where = np.array([place_map.pose(place) for place in range(5)])
    expected = [179.9998, 179.9999, -180.0, -179.9999, -179.9998]
    assert np.allclose(np.cos(np.radians(where[:, 0] - expected)), 1)
    assert np.allclose(where[:, 1:3], (-16.5, 10.0)) and np.isnan(where[:, 3:]).all()


def test_a_gap_in_the_poses_is_no_straight_line(tmp_path: Path) -> None:
    path = tmp_path / "gap.mcap"
    with BagWriter(path, "mcap") as bag:
        for index, frame in enumerate(plain_frames(9)):
            bag.add(IMAGES, bag.rgb(frame, START_S + index), START_S + index)
        for t in (0.0, 1.0, 7.0, 8.0):
            bag.add(ODOM, bag.placed("Odometry", START_S + t, t, 0.0, 0.0), START_S + t)
    frames = frames_of(path, Picking(poses_topic=ODOM, every_s=0))
    known = [f.pose is not None for f in frames if isinstance(f, RecordedFrame)]
    assert known == [True, True, *[False] * 5, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulation_that_begins_at_0_has_all_its_positions(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A first header of 0 was taken for none, so that all later ones were a clock set back."""
    path = tmp_path / f"simulated.{kind}"
    with BagWriter(path, kind) as bag:
        for index, frame in enumerate(plain_frames(5)):
            bag.add(IMAGES, bag.rgb(frame, float(index)), START_S + index)
            bag.add(
                ODOM, bag.placed("Odometry", float(index), 2.0 * index, 0.0, 0.0), START_S + index
            )
    frames = frames_of(path, Picking(poses_topic=ODOM))
    found = [(f.time_s, f.pose and f.pose[0]) for f in frames if isinstance(f, RecordedFrame)]
    assert found == [(float(index), 2.0 * index) for index in range(5)]
    assert not caplog.text


def test_headers_without_any_time_have_that_of_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "unset.mcap"
    with BagWriter(path, "mcap") as bag:
        for index, frame in enumerate(plain_frames(5)):
            at_s = START_S + index
            bag.add(IMAGES, bag.rgb(frame, at_s), at_s)
            bag.add(ODOM, bag.placed("Odometry", 0.0, 2.0 * index, 0.0, 0.0), at_s)
    frames = frames_of(path, Picking(poses_topic=ODOM))
    found = [f.pose and f.pose[0] for f in frames if isinstance(f, RecordedFrame)]
    assert found == [2.0 * index for index in range(5)]


def test_times_that_came_twice_have_no_position(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The robot's clock is set back by 4 s after the fifth second; the recorder's is not."""
    path = tmp_path / "back.mcap"
    with BagWriter(path, "mcap") as bag:
        for index, frame in enumerate(plain_frames(10)):
            at_s = START_S + index
            told_s = at_s - 4 * (index > 5)
            bag.add(IMAGES, bag.rgb(frame, told_s), at_s)
            bag.add(ODOM, bag.placed("Odometry", told_s, 10.0 * index, 0.0, 0.0), at_s)
            late = bag.placed("Odometry", told_s - 0.3, 10.0 * index - 3.0, 0.0, 0.0)
            bag.add(ODOM, late, at_s + 0.1)  # a message that overtakes another is no such clock
    frames = frames_of(path, Picking(poses_topic=ODOM, every_s=0))
    found = [f.pose and f.pose[0] for f in frames if isinstance(f, RecordedFrame)]
    assert found == [0.0, 10.0, *[None] * 8]
    assert "the clock of /odom was set back by" in caplog.text
    assert caplog.text.count("set back") == 1


def test_calibrate_describe_and_evaluate_take_bags(
    tatvpr: Run, drives: dict[str, Path], tiny_host: Path
) -> None:
    bag, at_every = drives["mcap"], ("--every", "0")
    poses = ("--poses-topic", ODOM)
    tatvpr("describe", bag, *at_every, "--artifact", tiny_host, "-o", "d.npy")
    assert np.load("d.npy").shape == (10, 48)
    done = tatvpr("evaluate", bag, drives["db3"], *poses, "--within", "0.5m", "--k", "1",
                  "--artifact", tiny_host, "--html", "page.html", "--json")  # fmt: skip
    document = json.loads(done.stdout)
    assert (document["places"], document["queries_counted"]) == (8, 8)
    assert document["recall"]["1"]["@1"] == 100
    assert Path("page.html").read_text().count("<img") >= 16
    # All frames: two of each were taken outside the poses' times.
    done = tatvpr("evaluate", bag, drives["db3"], *poses, *at_every, "--within", "0.5m", "--k", "1",
                  "--artifact", tiny_host)  # fmt: skip
    assert "8 places; 8 of 10 queries lie within" in done.stdout
    assert "no position in /odom" in done.stderr and "2 of 10 queries have no" in done.stderr
    tatvpr("map", "build", bag, *poses, "--artifact", tiny_host, "-o", "m")
    few = tatvpr("map", "calibrate", "m", bag, *poses, "--artifact", tiny_host, status=1)
    assert "answers" in few.stderr and "narrower --within" in few.stderr
    bare = tatvpr("map", "calibrate", "m", bag, "--artifact", tiny_host, status=1)
    assert "--poses-topic of a bag" in bare.stderr


# ---- pixels ----------------------------------------------------------------------------------


def test_encodings_byte_orders_and_steps_of_a_bag(tmp_path: Path) -> None:
    height, width = 4, 6
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)
    gray = pixels[:, :, 1]
    deep = gray.astype(np.uint16) * 256 + 7
    padded = np.pad(pixels.reshape(height, -1), ((0, 0), (0, 5)))
    alpha = np.dstack([pixels, np.full((height, width), 9, np.uint8)])
    uyvy = np.stack([np.full_like(gray, 128), gray], axis=2)
    grays = np.repeat(gray[:, :, None], 3, axis=2)
    sent = {
        "rgb8": (padded, pixels, False),
        "bgr8": (pixels[:, :, ::-1], pixels, True),
        "rgba8": (alpha, pixels, False),
        "bgra8": (alpha[:, :, [2, 1, 0, 3]], pixels, False),
        "mono8": (gray, grays, False),
        "8UC1": (gray, grays, False),
        "mono16": (deep.astype("<u2").view(np.uint8), grays, False),
        "16UC1": (deep.astype(">u2").view(np.uint8), grays, True),
        "yuv422": (uyvy, grays, False),
        "yuv422_yuy2": (uyvy[:, :, ::-1], grays, False),
    }
    for kind in KINDS:
        path = tmp_path / f"all.{kind}"
        with BagWriter(path, kind) as bag:
            for index, (encoding, (data, _, big)) in enumerate(sent.items()):
                image = bag.image(data, width, height, START_S + index, encoding, big)
                bag.add(IMAGES, image, START_S + index)
        frames = frames_of(path, Picking(every_s=0))
        for frame, (encoding, (_, expected, _)) in zip(frames, sent.items(), strict=True):
            assert np.array_equal(rgb(frame.read()), expected), (kind, encoding)
            assert np.array_equal(np.asarray(frame.picture()), expected)


def test_compressed_images_and_what_is_no_picture(tmp_path: Path, tiny_host: Path) -> None:
    path = tmp_path / "compressed.mcap"
    scene = scenes(1)[0]
    file = io.BytesIO()
    Image.fromarray(scene).save(file, "PNG")
    with BagWriter(path, "mcap") as bag:
        bag.add("/c", bag.compressed(file.getvalue(), 1.0, "rgb8; png compressed"), 1.0)
        bag.add("/c", bag.compressed(file.getvalue()[:90], 2.0, "png"), 2.0)
        bag.add("/c", bag.compressed(b"", 3.0, "16UC1; compressedDepth png"), 3.0)
        bayer = bag.image(np.zeros((4, 4), np.uint8), 4, 4, 5.0, "bayer_rggb8")
        bag.add("/raw", bayer, 5.0)
    with Localizer(tiny_host) as localizer:
        made = build_map(localizer, path, tmp_path / "m", picking=Picking(topic="/c"))
        assert made.places == 1
        reasons = [skipped.reason for skipped in made.skipped]
        assert "2.000000000: the image is damaged" in reasons[0]
        assert "compressed depth" in reasons[1]
        assert np.array_equal(frames_of(path, Picking(topic="/c"))[0].read(), scene)
        with pytest.raises(DataError, match=r"'bayer_rggb8', a mosaic.*image_proc"):
            build_map(localizer, path, tmp_path / "n", picking=Picking(topic="/raw"))


def test_a_long_drive_takes_little_memory(tmp_path: Path, tiny_host: Path) -> None:
    path = tmp_path / "long.bag"
    frame = plain_frames(1, 640, 480)[0]
    with BagWriter(path, "bag") as bag:
        for index in range(60):
            frame[:, :, index % 3] += 3
            bag.add(IMAGES, bag.rgb(frame, START_S + index), START_S + index)
    with Localizer(tiny_host) as localizer:
        tracemalloc.start()
        made = build_map(localizer, path, tmp_path / "m")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert made.places == 60
    # Twice as many as there are cores are on their way, and some are being converted.
    assert peak < (2 * (os.cpu_count() or 1) + 20) * frame.nbytes, peak / frame.nbytes


# ---- damage and mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_message_is_named_and_left_out(
    tatvpr: Run, tmp_path: Path, kind: str, tiny_host: Path
) -> None:
    path = tmp_path / f"run.{kind}"
    with BagWriter(path, kind) as bag:
        for index, frame in enumerate(scenes(4)):
            cut = 500 if index == 2 else None
            bag.add(IMAGES, bag.rgb(frame, START_S + index), START_S + index, cut)
    options = ("--artifact", tiny_host, "-o", "m")
    done = tatvpr("map", "build", path, *options)
    assert done.stderr.count(f"left out: {path}: a message of {IMAGES} is damaged") == 1
    assert "m: 3 places" in done.stdout
    asked = tatvpr("query", path, "--map", "m", "--artifact", tiny_host, "--every", "0")
    assert "is damaged" in asked.stderr and len(asked.stdout.splitlines()) == 4
    stopped = tatvpr("map", "build", path, "--artifact", tiny_host, "-o", "n", "--strict", status=1)
    assert "is damaged" in stopped.stderr and not Path("n").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.6])
def test_a_truncated_bag_is_one_line_with_its_remedy(
    tatvpr: Run, drives: dict[str, Path], tmp_path: Path, kind: str, part: float, tiny_host: Path
) -> None:
    path = drive(tmp_path / f"cut.{kind}", kind)
    file = storage(path)
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    try:
        frames_of(path, Picking(every_s=0))
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        done = tatvpr("map", "build", path, "--artifact", tiny_host, "-o", "m", status=1)
        assert str(path) in done.stderr
    else:
        done = tatvpr("map", "build", path, "--every", 0, "--artifact", tiny_host, "-o", "m")
        assert "may mend it" in done.stderr and 0 < len(PlaceMap("m")) < 10


def test_topics_are_listed_where_the_choice_is_not_clear(
    tatvpr: Run, tmp_path: Path, drives: dict[str, Path], tiny_host: Path
) -> None:
    two = tmp_path / "two.mcap"
    with BagWriter(two, "mcap") as bag:
        for topic in ("/left", "/right"):
            bag.add(topic, bag.rgb(plain_frames(1)[0], 1.0), 1.0)
    no_images = tmp_path / "none.bag"
    with BagWriter(no_images, "bag") as bag:
        bag.add(ODOM, bag.placed("Odometry", 1.0, 0.0, 0.0, 0.0), 1.0)
    run = drives["bag"]
    for path, options, text in (
        (two, (), "images on /left, /right: say which with --topic"),
        (two, ("--topic", "/up"), "no topic /up: it has images on /left, /right"),
        (run, ("--topic", ODOM), f"{ODOM} holds nav_msgs/msg/Odometry, no images"),
        (run, ("--poses-topic", "/tf"), f"no topic /tf: it has poses on {ODOM}"),
        (two, ("--topic", "/left", "--poses-topic", ODOM), "it has poses on no topic"),
        (no_images, (), "images on no topic"),
        (run, ("--distance", "1m"), "give --poses-topic"),
        (run, ("--distance", "1m", "--every", "1s", "--poses-topic", ODOM), "one of the two"),
        (run, ("--poses", "p.csv", "--poses-topic", ODOM), "one of the two"),
        (tmp_path / "away.mcap", (), "no such file or folder"),
    ):
        command = ("map", "build", path, *options, "--artifact", tiny_host, "-o", "m")
        assert text in tatvpr(*command, status=1).stderr


@pytest.mark.parametrize("name", ["away.bag", "away.mp4"])
def test_what_is_not_there_needs_no_package(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told to install rosbags."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=rf"{name}: no such file or folder"):
        frames_of(tmp_path / name)


def test_options_of_recordings_are_refused_elsewhere(
    tatvpr: Run, folder: Path, tmp_path: Path, a_map: Path, tiny_host: Path
) -> None:
    write_video(tmp_path / "v.mkv", plain_frames(2))
    asked = ("--artifact", tiny_host, "--map", a_map)
    done = tatvpr("query", folder, "--every", "1s", *asked, status=1)
    assert "--every: for recordings alone" in done.stderr
    done = tatvpr("query", tmp_path / "v.mkv", "--topic", "/a", *asked, status=1)
    assert "is a video, which has no topics" in done.stderr
    tatvpr("query", folder, "--every", "soon", *asked, status=2)
    with pytest.raises(UsageError, match="every_s"):
        Picking(every_s=-1.0)


def test_images_without_any_pose_in_their_time_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "apart.bag"
    with BagWriter(path, "bag") as bag:
        bag.add(IMAGES, bag.rgb(plain_frames(1)[0], 100.0), 100.0)
        bag.add(ODOM, bag.placed("Odometry", 5.0, 0.0, 0.0, 0.0), 100.0)
    with pytest.raises(DataError, match=r"do the times of .* overlap"):
        frames_of(path, Picking(poses_topic=ODOM))


def test_a_package_that_is_missing_is_named(drives: dict[str, Path], tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", plain_frames(2), codec="mpeg4", pixels="yuv420p")
    for module, path, extra in (
        ("rosbags", drives["bag"], "bags"),
        ("av", tmp_path / "v.mp4", "video"),
    ):
        program = (
            f"import sys; sys.modules[{module!r}] = None\n"
            "from tatvpr_edge.cli import main\n"
            f"sys.exit(main(['query', {str(path)!r}]))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 1 and f"pip install 'tatvpr-edge[{extra}]'" in done.stderr


# ---- any bytes ----


@pytest.mark.parametrize("kind", [*KINDS, "mkv"])
def test_any_damage_is_one_of_our_errors_or_another_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "mkv":
        write_video(path, plain_frames(4, 16, 12))
    else:
        with BagWriter(path, kind) as bag:
            for index, frame in enumerate(plain_frames(4, 16, 12)):
                at_s = START_S + index
                bag.add(IMAGES, bag.rgb(frame, at_s), at_s)
                bag.add(ODOM, bag.placed("Odometry", at_s, at_s, 0.0, 0.0), at_s)
    picking = Picking(poses_topic=None if kind == "mkv" else ODOM, every_s=0)
    file = storage(path)
    good = file.read_bytes()
    draw = np.random.default_rng(KINDS.index(kind) if kind in KINDS else 9)
    outcomes = set()
    for _ in range(60):
        bytes_ = bytearray(good)
        for at in draw.integers(0, len(good), draw.integers(1, 6)):
            bytes_[at] = draw.integers(0, 256)
        cut = draw.integers(0, len(good)) if draw.random() < 0.2 else len(good)
        file.write_bytes(bytes_[:cut])
        try:
            frames = frames_of(path, picking)
        except DataError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
            continue
        for frame in frames:
            try:
                outcomes.add(rgb(frame.read()).ndim)
            except (DataError, FrameError):
                outcomes.add("left out")
    assert {"refused", 3} <= outcomes
