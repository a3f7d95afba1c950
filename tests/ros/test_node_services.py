"""What others ask of the node: places added, maps saved, k set, states changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.ros import WAIT_S, InMemory, image
from tatvpr_edge.ros import Parameters, PlaceNode, handlers
from tatvpr_edge.runtime import Localizer

Frames = NDArray[np.uint8]


def ask(node: PlaceNode, service: str, **request: Any) -> Any:
    """A service of the node, as both transports call it."""
    handler = {**handlers.CHANGES, **handlers.LIFECYCLE}[service]
    reply = SimpleNamespace(success=False, message="", current_state=SimpleNamespace())
    return handlers.answered(handler, node, SimpleNamespace(**request), reply)


def pose_at(x: float) -> Any:
    """``geometry_msgs/Pose``."""
    return SimpleNamespace(
        position=SimpleNamespace(x=x, y=1.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
    )


def test_a_place_is_added_from_the_newest_image_and_found_by_the_next(
    made: Callable[..., PlaceNode], memory: InMemory, strangers: Frames, own_map: Path
) -> None:
    node = made()
    node.start()
    request = {"has_pose": True, "pose": pose_at(40.0), "tag": "door"}
    refused = ask(node, "add_place", **request, only_if_new=False, novelty=0.0)
    assert not refused.success and "no image came yet" in refused.message
    memory.images.put(image(strangers[0]))
    memory.sent["match"].get(timeout=WAIT_S)
    reply = ask(node, "add_place", **request, only_if_new=True, novelty=0.999)
    assert reply.success and reply.place == 8
    again = ask(node, "add_place", **request, only_if_new=True, novelty=0.9)
    assert not again.success and again.place == -1 and "looks like it" in again.message
    memory.images.put(image(strangers[0]))
    said = memory.sent["match"].get(timeout=WAIT_S)
    assert (said.place, said.tag, said.pose.position.x) == (8, "door", 40.0)
    saved = ask(node, "save_map", name="grown.placemap")
    assert saved.success and saved.path == str(own_map.with_name("grown.placemap"))
    with Localizer(node.localizer.artifact.root, saved.path) as localizer:  # type: ignore[union-attr]
        assert localizer.map is not None and len(localizer.map) == 9


def test_an_image_of_a_camera_that_fell_silent_is_no_place(
    tiny_host: Path, own_map: Path, memory: InMemory, frames: Frames
) -> None:
    """The robot drove on, and the pose is that of now."""
    now_s = [time.monotonic()]
    settings = {"artifact": str(tiny_host), "map": str(own_map), "k": "1.0"}
    node = PlaceNode(Parameters.of(settings), memory, clock=lambda: now_s[0])
    try:
        node.start()
        memory.images.put(image(frames[1]))
        memory.sent["match"].get(timeout=WAIT_S)
        now_s[0] += 60.0
        request = {"has_pose": False, "tag": "door", "only_if_new": False}
        refused = ask(node, "add_place", **request)
        assert not refused.success and "60.0 s ago, and stale_s is 2" in refused.message
        memory.images.put(image(frames[1]))
        memory.sent["match"].get(timeout=WAIT_S)
        assert ask(node, "add_place", **request).success
    finally:
        node.shutdown()


@pytest.mark.parametrize("name", ["../escape.placemap", "/etc/x.placemap", "map.txt", ".placemap"])
def test_whoever_is_on_the_network_cannot_choose_what_is_written_over(
    made: Callable[..., PlaceNode], name: str, own_map: Path
) -> None:
    node = made()
    node.change("configure")
    before = sorted(path.name for path in own_map.parent.iterdir())
    reply = ask(node, "save_map", name=name)
    assert not reply.success and "no name for a map" in reply.message
    (own_map.parent / "led.placemap").symlink_to("nowhere")  # it would be written there
    for there in (own_map.name, "led.placemap"):
        assert "exists already" in ask(node, "save_map", name=there).message
    (own_map.parent / "led.placemap").unlink()
    assert sorted(path.name for path in own_map.parent.iterdir()) == before


def test_the_journal_is_folded_into_the_map(
    made: Callable[..., PlaceNode], memory: InMemory, strangers: Frames, own_map: Path
) -> None:
    node = made()
    node.start()
    for stranger in strangers:
        memory.images.put(image(stranger))
        memory.sent["match"].get(timeout=WAIT_S)
        assert node.add_place().place is not None
        assert ask(node, "save_map", name="").path == str(own_map)
        assert not own_map.with_name(f"{own_map.name}.journal").exists()
    memory.images.put(image(strangers[1]))
    assert memory.sent["match"].get(timeout=WAIT_S).place == 9


def test_a_map_stays_within_its_limit_whoever_adds(
    made: Callable[..., PlaceNode], memory: InMemory, strangers: Frames, own_map: Path
) -> None:
    node = made(max_map_mb=1 / 16)
    node.start()
    memory.images.put(image(strangers[0]))
    memory.sent["match"].get(timeout=WAIT_S)
    for index in range(30):
        node.add_place(tag=f"{index:04}" * 1000)
    assert node.localizer is not None and node.localizer.map is not None
    assert node.localizer.map.file_bytes <= 2**16


def test_k_is_set_and_refused(made: Callable[..., PlaceNode]) -> None:
    node = made()
    assert not ask(node, "set_k", k="0.5", budget="").success  # not configured
    node.change("configure")
    assert ask(node, "set_k", k="0.5", budget="").success
    assert node.localizer is not None and node.localizer.k == 0.5
    for wrong in (
        {"k": "", "budget": ""},
        {"k": "7", "budget": ""},
        {"k": "much", "budget": ""},
        {"k": "0.2", "budget": "5W"},
    ):
        reply = ask(node, "set_k", **wrong)
        assert not reply.success and reply.message, wrong
        assert node.localizer.k == 0.5


def test_lifecycle_services_take_numbers_and_words(made: Callable[..., PlaceNode]) -> None:
    node = made()
    for number, label, state in (
        (1, "", "inactive"),
        (0, "activate", "active"),
        (7, "", "finalized"),
    ):
        transition = SimpleNamespace(id=number, label=label)
        assert ask(node, "change_state", transition=transition).success
        assert ask(node, "get_state").current_state.label == state
    assert not ask(node, "change_state", transition=SimpleNamespace(id=77, label="")).success
