"""The node as a robot meets it, without any middleware: answers, states, health, parameters."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.ros import APART_M, WAIT_S, InMemory, image, wait_diagnostics
from tatvpr_edge.ros import Parameters, PlaceNode, State
from tatvpr_edge.ros.covariance import UNKNOWN
from tatvpr_edge.ros.node import awake_or_not_s
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.errors import ArtifactError, MapError, UsageError

Frames = NDArray[np.uint8]


# ---- answers ----


def test_an_image_is_answered_as_localizer_answers_it(
    made: Callable[..., PlaceNode],
    memory: InMemory,
    frames: Frames,
    tiny_host: Path,
    scene_map: Path,
) -> None:
    made().start()
    memory.images.put(image(frames[3], seconds=12.5))
    said = memory.sent["match"].get(timeout=WAIT_S)
    with Localizer(tiny_host, scene_map, k=1.0) as localizer:
        match = localizer.query(frames[3])
    assert (said.place, said.tag) == (3, "scene 3")
    assert said.score == pytest.approx(match.score)
    assert said.judged and said.accepted and said.reason == ""
    assert (said.header.stamp.sec, said.header.stamp.nanosec) == (12, 500_000_000)
    assert said.header.frame_id == "camera"
    assert said.has_pose and said.pose.position.x == 3 * APART_M
    assert (said.k, said.tokens, said.pose_frame) == (1.0, 1.0, "local")
    assert said.latency_ms > 0


def test_an_accepted_match_has_a_pose_as_wide_as_the_map_is_sparse(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    made(frame_id="floor").start()
    memory.images.put(image(frames[3]))
    pose = memory.sent["pose"].get(timeout=WAIT_S)
    assert pose.header.frame_id == "floor" and pose.header.stamp.sec == 5
    covariance = np.array(pose.pose.covariance).reshape(6, 6)
    assert np.isfinite(covariance).all()
    assert covariance[0, 0] == covariance[1, 1] == APART_M**2
    # The map knows neither height nor heading: numbers that a filter may read, and gives no weight.
    assert pose.pose.pose.position.z == 0.0 and pose.pose.pose.orientation.w == 1.0
    assert (np.diag(covariance)[2:] == UNKNOWN).all()


def test_answers_rest_on_a_sequence_where_that_is_set(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    node = made(sequence=3, stale_s=WAIT_S)
    node.start()

    def drive() -> list[Any]:
        said = []
        for index in range(5):
            memory.images.put(image(frames[index], seconds=1 + index))
            said.append(memory.sent["match"].get(timeout=WAIT_S))
        return said

    said = drive()
    assert [match.frames for match in said] == [1, 2, 3, 3, 3]
    assert said[-1].place == 4
    # Wherever the robot was brought meanwhile: what it saw before speaks for nothing.
    node.change("deactivate")
    node.change("activate")
    assert [match.frames for match in drive()] == [1, 2, 3, 3, 3]


class InTurn(InMemory):
    """Gives the node every image."""

    def next_image(self, timeout_s: float) -> Any | None:
        try:
            return self.images.get(timeout=timeout_s)
        except queue.Empty:
            return None


def test_images_are_answered_no_more_often_than_is_wanted(
    tiny_host: Path, own_map: Path, frames: Frames
) -> None:
    """By their own times, of which one may be a little early; a clock that was set back begins
    anew."""
    settings = {"artifact": str(tiny_host), "map": str(own_map), "every_s": 1.0}
    memory = InTurn()
    node = PlaceNode(Parameters.of(settings), memory)
    try:
        node.start()
        for seconds in (100, 100.5, 100.9, 100.97, 101.5, 102, 40, 40.5, 41):
            memory.images.put(image(frames[1], seconds=seconds))
        stamps = [memory.sent["match"].get(timeout=WAIT_S).header.stamp for _ in range(5)]
    finally:
        node.shutdown()
    answered = [stamp.sec + stamp.nanosec / 1e9 for stamp in stamps]
    assert answered == pytest.approx([100, 100.97, 102, 40, 41])


@pytest.mark.parametrize("stamped", [True, False])
def test_a_camera_whose_images_are_passed_over_is_not_silent(
    tiny_host: Path, own_map: Path, frames: Frames, stamped: bool
) -> None:
    """A bag that plays at a quarter of its speed, or a camera at 1 Hz of which every 1.5 s are
    wanted: each answer began a new sequence, and diagnostics called the camera silent. They do call
    one so whose driver gives every image one time."""
    settings = {"artifact": str(tiny_host), "map": str(own_map), "sequence": 3, "every_s": 1.0}
    now_s, silent_s = [1000.0], []

    class Slowly(InTurn):
        def next_image(self, timeout_s: float) -> Any | None:
            found = super().next_image(timeout_s)
            if found is not None:
                now_s[0] += 1.0
                silent_s.append(node.figures.summary().silent_s)
            return found

    memory = Slowly()
    node = PlaceNode(Parameters.of(settings), memory, clock=lambda: now_s[0])
    try:
        node.start()
        for quarter in range(13):
            taken_s = 100 + quarter / 4 * (stamped or quarter == 12)
            memory.images.put(image(frames[quarter // 4], seconds=taken_s))
        answers = 4 if stamped else 2
        told = [memory.sent["match"].get(timeout=WAIT_S).frames for _ in range(answers)]
    finally:
        node.shutdown()
    assert told == ([1, 2, 3, 3] if stamped else [1, 1])
    assert silent_s == ([1.0] * 13 if stamped else [1.0, *range(1, 13)])


@pytest.mark.parametrize("wrong", [-1.0, 2.0, float("nan")])
def test_a_rate_that_no_sequence_lasts_for_is_refused(wrong: float) -> None:
    with pytest.raises(UsageError, match=r"every_s .* below stale_s"):
        Parameters(every_s=wrong)


def test_a_sequence_ends_with_a_camera_that_was_silent(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    made(sequence=3, stale_s=0.05).start()
    for second in (1, 2):
        time.sleep(0.1)
        memory.images.put(image(frames[second], seconds=second))
        assert memory.sent["match"].get(timeout=WAIT_S).frames == 1


def test_a_sequence_ends_while_the_machine_sleeps(
    tiny_host: Path, own_map: Path, memory: InMemory, frames: Frames
) -> None:
    """Linux's monotonic clock stands still meanwhile, and the robot may be carried."""
    now_s = [time.monotonic()]
    settings = {"artifact": str(tiny_host), "map": str(own_map), "k": "1.0", "sequence": 3}
    node = PlaceNode(Parameters.of(settings), memory, clock=lambda: now_s[0])
    try:
        node.start()
        said = []
        for number, slept_s in enumerate((0.0, 0.5, 3600.0, 0.5)):
            now_s[0] += slept_s
            memory.images.put(image(frames[number], seconds=now_s[0]))
            said.append(memory.sent["match"].get(timeout=WAIT_S).frames)
    finally:
        node.shutdown()
    assert said == [1, 2, 1, 2]


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="of Linux")
def test_the_nodes_clock_goes_on_while_the_machine_sleeps() -> None:
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before_s <= awake_or_not_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_place_of_unknown_position_has_no_pose(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    made().start()
    memory.images.put(image(frames[-1]))
    said = memory.sent["match"].get(timeout=WAIT_S)
    assert said.accepted and not said.has_pose
    assert not math.isnan(said.pose.position.x)
    memory.images.put(image(frames[0]))
    assert memory.sent["pose"].get(timeout=WAIT_S).pose.pose.position.x == 0.0


def test_a_deviation_whose_square_is_no_number_is_the_largest_variance(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    """As of a map whose places are 1e200 m apart: no image was answered."""
    made(position_sigma_m=1e200, heading_sigma_rad=1e200).start()
    memory.images.put(image(frames[0]))
    covariance = np.array(memory.sent["pose"].get(timeout=WAIT_S).pose.covariance).reshape(6, 6)
    assert (np.diag(covariance) == UNKNOWN).all()


def test_what_is_not_accepted_has_no_pose(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames, strangers: Frames
) -> None:
    made().start()
    for frame, reason in ((strangers[0], "threshold"), (np.zeros_like(frames[0]), "")):
        memory.images.put(image(frame))
        said = memory.sent["match"].get(timeout=WAIT_S)
        assert said.judged and not said.accepted and said.reason and reason in said.reason
    assert memory.sent["pose"].empty()


def test_while_one_image_is_answered_only_the_newest_of_the_others_stays(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    node = made()
    node.change("configure")
    localizer = node.localizer
    assert localizer is not None
    began, go, query = threading.Event(), threading.Event(), localizer.query

    def slow(*arguments: Any, **settings: Any) -> Any:
        began.set()
        assert go.wait(WAIT_S)
        return query(*arguments, **settings)

    localizer.query = slow  # type: ignore[method-assign]
    node.change("activate")
    memory.images.put(image(frames[0], seconds=1))
    assert began.wait(WAIT_S)
    for index in (1, 2, 3, 4):
        memory.images.put(image(frames[index], seconds=1 + index))
    go.set()
    said = [memory.sent["match"].get(timeout=WAIT_S) for _ in range(2)]
    assert [each.header.stamp.sec for each in said] == [1, 5]
    with pytest.raises(queue.Empty):
        memory.sent["match"].get(timeout=0.3)


def test_images_that_are_none_do_not_end_the_node(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    node = made(diagnostics_hz=50)
    node.start()
    broken = image(frames[0])
    broken.encoding = "bayer_rggb8"
    memory.images.put(broken)
    status = wait_diagnostics(memory, lambda status: status.level == status.ERROR)
    assert "bayer_rggb8" in status.message
    memory.images.put(SimpleNamespace())  # no message at all
    wait_diagnostics(memory, lambda status: "AttributeError" in status.message)
    memory.images.put(image(frames[2]))
    assert memory.sent["match"].get(timeout=WAIT_S).place == 2
    wait_diagnostics(memory, lambda status: status.level == status.OK and "p95" in status.message)
    assert node.figures.summary().failed == 2


# ---- states ----


def test_the_states_are_those_of_a_lifecycle_node(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    node = made(autostart=False)
    assert node.state is State.UNCONFIGURED and node.localizer is None
    memory.images.put(image(frames[1]))
    assert node.change("configure") is State.INACTIVE
    with pytest.raises(queue.Empty):  # not active: nothing is answered
        memory.sent["match"].get(timeout=0.3)
    assert node.change("activate") is State.ACTIVE
    assert memory.sent["match"].get(timeout=WAIT_S).place == 1
    assert node.change("deactivate") is State.INACTIVE
    assert node.change("cleanup") is State.UNCONFIGURED and node.localizer is None
    node.start()
    memory.images.put(image(frames[4]))
    assert memory.sent["match"].get(timeout=WAIT_S).place == 4
    node.shutdown()
    node.shutdown()
    assert node.state is State.FINALIZED


@pytest.mark.parametrize(
    ("before", "wrong"),
    [((), "activate"), (("configure",), "configure"), (("configure",), "deactivate")],
)
def test_a_transition_from_the_wrong_state_changes_nothing(
    made: Callable[..., PlaceNode], before: tuple[str, ...], wrong: str
) -> None:
    node = made()
    for transition in before:
        node.change(transition)
    state = node.state
    with pytest.raises(UsageError, match=f"the node is {state.name.lower()}: {wrong} starts from"):
        node.change(wrong)
    assert node.state is state


def test_a_node_that_cannot_be_configured_may_be_configured_later(
    made: Callable[..., PlaceNode], own_map: Path
) -> None:
    node = made()
    away = own_map.with_suffix(".away")
    own_map.rename(away)
    with pytest.raises(MapError, match=r"own\.placemap"):
        node.change("configure")
    assert node.state is State.UNCONFIGURED
    away.rename(own_map)
    assert node.change("configure") is State.INACTIVE


def test_without_an_artifact_or_a_map_it_says_what_to_set(
    made: Callable[..., PlaceNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(tmp_path / "nothing"))
    with pytest.raises(MapError, match="set the parameter map"):
        made(map="").change("configure")
    with pytest.raises(ArtifactError):
        made(artifact=str(tmp_path)).change("configure")


# ---- health ----


def test_diagnostics_say_who_is_silent(
    made: Callable[..., PlaceNode], memory: InMemory, frames: Frames
) -> None:
    memory.publishers = 0
    node = made(diagnostics_hz=50, stale_s=0.2)
    assert wait_diagnostics(memory, lambda s: True).message == "unconfigured"
    node.start()
    status = wait_diagnostics(memory, lambda status: status.level == status.STALE)
    assert "/camera/image_raw" in status.message and "nobody publishes it" in status.message
    memory.publishers = 2
    wait_diagnostics(memory, lambda status: "2 publish it, and are silent" in status.message)
    memory.images.put(image(frames[0]))
    status = wait_diagnostics(memory, lambda status: ("answered", "1") in values(status))
    shown = dict(values(status))
    assert shown["state"] == "active" and shown["k"] == "1.0" and shown["places"] == "8"
    assert status.name == "place_node: place recognition" and status.hardware_id == "host"


def values(status: Any) -> list[tuple[str, str]]:
    """(key, value) of a status."""
    return [(each.key, each.value) for each in status.values]


# ---- parameters ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", "lots"),
        ("sequence", 0),
        ("sequence", True),
        ("sequence", 2.5),
        ("odometry_topic", "/odom"),
        ("odometry_topic", "/the odometry"),
        ("exclude_last", "ever"),
        ("exclude_last", 5000 * "9"),
        ("image_topic", "/camera/image raw"),
        ("image_topic", "/camera//image"),
        ("image_topic", "/1camera"),
        ("image_topic", "/diagnostics"),
        ("image_transport", "theora"),
        ("stale_s", 0.0),
        ("diagnostics_hz", math.inf),
        ("diagnostics_hz", 1e-12),
        ("max_map_mb", math.nan),
        ("autostart", "yes"),
        ("frame_id", ""),
        ("colour", "red"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name.split("_")[0]):
        Parameters.of({name: value})


def test_numbers_stand_for_texts_as_a_yaml_file_has_them() -> None:
    parameters = Parameters.of({"k": 0.2, "exclude_last": 30, "tokens": 1})
    assert parameters.localizer_arguments()["k"] == 0.2
    assert parameters.excluded == 30 and parameters.tokens == 1.0
    assert Parameters.of({"exclude_last": "30s"}).excluded == "30s"
    assert Parameters.of({"exclude_last": 1_000_000}).excluded == 1_000_000


@pytest.mark.parametrize("name", ["", "place-node", "7up", "a/b", "é"])
def test_a_node_has_a_name_that_ros_allows(name: str, memory: InMemory) -> None:
    with pytest.raises(UsageError, match="node name"):
        PlaceNode(Parameters(), memory, name)
