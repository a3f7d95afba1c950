"""A robot's odometry beside its images: what it tells a sequence, and what it may not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.ros import APART_M, WAIT_S, InMemory, image, odometry, wait_diagnostics
from tatvpr_edge.ros import Parameters, PlaceNode
from tatvpr_edge.ros.travel import Travel
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

Frames = NDArray[np.uint8]
Node = Callable[..., PlaceNode]


def standing_at(place: float) -> list[float]:
    """A pose x, y, z, qx, qy, qz, qw."""
    return [place * APART_M, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def drive(memory: InMemory, frames: Frames, poses: list[list[float] | None]) -> list[Any]:
    """Answers to images a second apart, each with odometry around its time (None: without)."""
    said = []
    for i, pose in enumerate(poses):
        if pose is not None:
            afar = [pose[0] + 20.0, *pose[1:]]  # of other times
            memory.moved += [odometry(afar, 1.7 + i), odometry(pose, 2.1 + i)]
            memory.moved += [odometry(afar, 2.4 + i)]
        said.append(shown(memory, frames[i % len(frames)], 2 + i))
    return said


def shown(memory: InMemory, frame: NDArray[np.uint8], seconds: float) -> Any:
    """The answer to an image."""
    memory.images.put(image(frame, seconds=seconds))
    return memory.sent["match"].get(timeout=WAIT_S)


@pytest.fixture(scope="module")
def walk(tiny_host: Path, frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of the scenes that judges sequences of three."""
    path = tmp_path_factory.mktemp("walk") / "walk.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        model = localizer.artifact.manifest.model
        rows = np.stack([localizer.describe(frame) for frame in frames])
    sequence = SequenceCalibration(3, 0.0, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.95, 0.9)
    judged = Calibration("logistic", 0.0, (1.0, 0.0, 0.0), 4.0, sequence=sequence)
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0, calibration=judged),))
    poses = np.array([standing_at(place) for place in range(len(frames))])
    write_map(path, info, [make_places(info, [rows], poses, None)])
    return path


def test_a_sequence_is_told_how_far_the_robot_went(
    made: Node, memory: InMemory, frames: Frames, tiny_host: Path, tmp_path: Path
) -> None:
    """The last image is as like place 6 as place 3; the robot stood at place 2, and went 8 m."""
    walked = tmp_path / "walked.placemap"
    mixed = (frames[3] // 2 + frames[6] // 2)[None]
    seen = np.concatenate([frames[2:3], frames[2:3], frames[2:3], mixed])
    poses = [standing_at(place) for place in (2, 2, 2, 6)]
    with Localizer(tiny_host, k=1.0) as localizer, MapWriter(walked, localizer) as writer:
        for place, frame in enumerate(frames):
            writer.add(frame, standing_at(place))
    with Localizer(tiny_host, walked, k=1.0, sequence=3) as unknown:
        without = [unknown.query(frame).place for frame in seen]
    made(map=str(walked), sequence=3, stale_s=WAIT_S, odometry_topic="/odom").start()
    said = [match.place for match in drive(memory, seen, [*poses])]
    assert (said, without) == ([2, 2, 2, 6], [2, 2, 2, 3])


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        (None, "none within 0.5 s of the last image's time, the nearest 0.6 s off"),
        ([2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "its quaternion is not of length 1"),
        ([math.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], "its position is no number"),
        ([1e300, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], "it jumped 1e+300 m in 0.3 s"),
    ],
)
def test_a_robot_whose_odometry_fails_is_followed_without(
    made: Node,
    memory: InMemory,
    frames: Frames,
    walk: Path,
    lost: list[float] | None,
    why: str,
) -> None:
    poses: list[Any] = [standing_at(place) for place in range(8)]
    node = made(
        map=str(walk), sequence=3, stale_s=WAIT_S, odometry_topic="/odom", diagnostics_hz=20
    )
    node.start()
    poses[3] = lost
    said = drive(memory, frames, poses[:4])
    warned = wait_diagnostics(memory, lambda status: "no odometry of /odom" in status.message)
    assert why in warned.message and warned.level == warned.WARN
    assert [match.frames for match in said] == [1, 2, 3, 3] and node.figures.summary().failed == 0
    for second in (6, 7):  # odometry is there again
        memory.moved.append(odometry(poses[7], second))
        assert shown(memory, frames[7], second).frames == 3
    wait_diagnostics(memory, lambda status: status.level == status.OK)
    shown(memory, frames[7], 0)
    wait_diagnostics(memory, lambda status: "images carry no time" in status.message)


def test_a_map_that_judges_no_sequences_is_warned_of(
    made: Node, memory: InMemory, frames: Frames
) -> None:
    """Its single images are judged: of a sequence nothing was ever accepted, and all was well."""
    made(sequence=3, diagnostics_hz=20).start()
    assert not shown(memory, frames[1], 2).judged
    status = wait_diagnostics(memory, lambda status: "not calibrated" in status.message)
    assert "for sequences of 3" in status.message and status.level == status.WARN


def test_a_sequence_ends_where_the_clock_is_set_back(
    made: Node, memory: InMemory, frames: Frames, walk: Path
) -> None:
    """A bag that is played again, or a simulation that begins anew."""
    made(map=str(walk), sequence=3, stale_s=WAIT_S).start()
    seconds = (100, 101, 102, 101.9, 2, 3)
    said = [shown(memory, frames[number], at).frames for number, at in enumerate(seconds)]
    assert said == [1, 2, 3, 3, 1, 2]


def test_a_node_that_was_inactive_begins_where_it_stands(
    made: Node, memory: InMemory, frames: Frames, walk: Path
) -> None:
    """Wherever it was driven meanwhile, and though nothing came of it but odometry."""
    node = made(
        map=str(walk), sequence=3, stale_s=WAIT_S, odometry_topic="/odom", diagnostics_hz=20
    )
    node.start()
    for transitions in (("deactivate",), ("deactivate", "cleanup", "configure")):
        said = drive(memory, frames, [standing_at(place) for place in range(3)])
        assert [(match.place, match.frames) for match in said] == [(0, 1), (1, 2), (2, 3)]
        for transition in transitions:
            node.change(transition)
        memory.moved += [odometry(standing_at(place), 5 + place) for place in range(2, 7)]
        node.change("activate")
        again = shown(memory, frames[6], 11)
        assert (again.place, again.frames, node.travel.fault) == (6, 1, None)


# ---- what two poses say ----


def went(travel: Travel, taken_s: float) -> float | None:
    """Metres along x to the image that is answered now."""
    poses = travel.to(taken_s)
    travel.arrived()
    return None if poses is None else poses[1][0] - poses[0][0]


@pytest.fixture
def travel() -> Travel:
    """At 2 m in the second 10, and at 2.5 m half a second later."""
    travel = Travel()
    travel.hear(10.0, "odom", standing_at(1.0))
    assert went(travel, 10.0) is None and travel.fault is None
    travel.hear(10.5, "odom", standing_at(1.25))
    return travel


def test_messages_may_overtake_each_other(travel: Travel) -> None:
    for at in (10.3, 10.2, 10.9, 11.1, 10.98, 10.8):
        travel.hear(at, "odom", standing_at(at / 2))
    assert went(travel, 11.0) == pytest.approx(10.98 - 2.0)
    assert travel.fault is None


def test_images_may_overtake_each_other(travel: Travel) -> None:
    for at in (10.75, 11.0):
        travel.hear(at, "odom", standing_at(at / 2))
    assert went(travel, 11.0) == pytest.approx(11.0 - 2.0)
    assert went(travel, 10.8) == pytest.approx(-0.25)


def test_odometry_may_correct_itself_a_little(travel: Travel) -> None:
    """From one message to the next, as where two estimates are merged."""
    travel.hear(10.501, "odom", standing_at(1.5))
    assert went(travel, 10.51) == pytest.approx(1.0) and travel.fault is None


def test_a_way_begins_where_the_image_before_stood(travel: Travel) -> None:
    """Not further back, where that was not known; nor before the path began anew."""
    assert went(travel, 15.0) is None and travel.fault
    assert went(travel, 10.5) is None and travel.fault is None
    assert went(travel, 10.5) == 0.0
    travel.restart()
    assert went(travel, 10.5) is None and travel.fault is None


@pytest.mark.parametrize("pose", [[math.inf, *6 * [0.0]], [1.0, *6 * [0.0]], 7 * [math.nan]])
def test_a_message_that_says_nothing_is_passed_over(travel: Travel, pose: list[float]) -> None:
    travel.hear(11.0, "odom", pose)
    assert went(travel, 10.9) == pytest.approx(0.5) and travel.fault is None
    travel.hear(12.0, "odom", pose)
    assert went(travel, 12.0) is None and "is no number" in str(travel.fault)
    assert went(travel, 13.0) is None and "none within 0.5 s" in str(travel.fault)


@pytest.mark.parametrize(
    ("time_s", "frame_id", "place", "why"),
    [
        (10.8, "odom", 40.0, "it jumped 77.5 m in 0.3 s"),
        (3610.5, "odom", 5001.25, "it jumped 1e+04 m in 3.6e+03 s"),
        (10.8, "map", 1.5, "its frame_id became 'map', and was 'odom'"),
        (3.0, "odom", 1.5, "its clock was set back by 7.5 s"),
    ],
)
def test_poses_of_two_odometries_say_nothing(
    travel: Travel, time_s: float, frame_id: str, place: float, why: str
) -> None:
    """Wheels that were switched on again, another program, a simulation that began anew: the robot
    did not drive from one to the other."""
    travel.hear(time_s, frame_id, standing_at(place))
    assert went(travel, time_s) is None and travel.fault and why in travel.fault
    travel.hear(time_s + 1, frame_id, standing_at(place + 1))
    assert went(travel, time_s + 1) == pytest.approx(APART_M) and travel.fault is None


def test_poses_of_before_a_clock_was_set_back_are_forgotten(travel: Travel) -> None:
    """The second 10 came twice; the robot stood elsewhere the first time."""
    for second in (1.0, 9.0, 10.1):
        travel.hear(second, "odom", standing_at(5.0))
        went(travel, second)
    travel.hear(11.1, "odom", standing_at(5.0))
    assert went(travel, 10.6) == 0.0


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "none came"),
        ([0.0], "its messages carry no time"),
        ([1.7e9], "the nearest 1.7e+09 s off"),
    ],
)
def test_it_is_said_what_odometry_lacks(messages: list[float], why: str) -> None:
    travel = Travel()
    for at in messages:
        travel.hear(at, "odom", standing_at(0))
    assert went(travel, 50.0) is None and travel.fault and why in travel.fault


@pytest.mark.parametrize("topic", ["/camera/image_raw", "camera/image_raw", "/diagnostics"])
def test_odometry_has_a_topic_of_its_own(topic: str) -> None:
    """DDS, and ROS, end a program that says two types of one topic."""
    with pytest.raises(UsageError, match=r"odometry and \w+ are one topic, /"):
        Parameters.of({"sequence": 5, "odometry_topic": topic})
