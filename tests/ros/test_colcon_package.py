"""The colcon packages: complete, in step with the node's parameters, and the rclpy file runs.

Neither ROS nor colcon is here: what can be known without them is, against a stand-in of rclpy.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.ros import APART_M
from support.ros_tools import require_bags

require_bags()

from support import rclpy_stand_in  # noqa: E402 - after rosbags is known to be there
from support.ros_types import typestore  # noqa: E402
from tatvpr_edge.ros import Parameters, handlers  # noqa: E402
from tatvpr_edge.ros.node import State  # noqa: E402

Frames = NDArray[np.uint8]
WAIT_S = 30.0


@pytest.fixture(scope="module")
def package(project_root: Path) -> Path:
    """The ament_python package."""
    return project_root / "ros2" / "tatvpr_edge_ros"


@pytest.fixture
def file(package: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The node's file, imported over the stand-in."""
    rclpy_stand_in.install(monkeypatch, typestore("ROS2_JAZZY", project_root))
    path = package / "tatvpr_edge_ros" / "place_node.py"
    spec = importlib.util.spec_from_file_location("place_node_under_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def others() -> dict[str, Any]:
    """Parameters that are set, beside the usual ones."""
    return {}


@pytest.fixture
def node(
    file: ModuleType,
    tiny_host: Path,
    scene_map: Path,
    others: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """The lifecycle node over the map, not configured."""
    usual = {"artifact": str(tiny_host), "map": str(scene_map), "k": 1.0, "diagnostics_hz": 20}
    values = {**usual, **others}
    monkeypatch.setattr(rclpy_stand_in.LifecycleNode, "values", values)
    made = file.RosNode()
    yield made
    made.on_shutdown(None)


def first(node: Any, topic: str, wanted: Any = lambda message: True) -> Any:
    """The first message on a topic that is as wanted."""
    with node.came:
        assert node.came.wait_for(lambda: any(map(wanted, node.sent[topic])), WAIT_S)
        return next(filter(wanted, node.sent[topic]))


def show(node: Any, frame: Any, second: int) -> None:
    """An image from the camera, as rclpy gives it."""
    subscription = node.subscriptions_made[0]
    message = subscription.kind(height=frame.shape[0], width=frame.shape[1], encoding="rgb8")
    message.step = 3 * frame.shape[1]
    message.header.stamp.sec, message.header.frame_id = second, "camera"
    message.data = rclpy_stand_in.octets(frame.tobytes())
    subscription.callback(message)


def test_an_image_is_answered(node: Any, frames: Frames) -> None:
    assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"
    show(node, frames[2], 77)
    match = first(node, "~/match")
    assert (match.place, match.accepted, match.header.stamp.sec) == (2, True, 77)
    pose = first(node, "~/pose")
    assert pose.pose.pose.position.x == 2 * APART_M and pose.header.frame_id == "map"
    array = first(node, "/diagnostics", lambda array: "p95" in array.status[0].message)
    assert array.status[0].level == b"\0" and array.header.stamp.nanosec == 7


def test_topics_and_qos(node: Any) -> None:
    images = node.subscriptions_made[0]
    assert images.topic_name == "/camera/image_raw" and images.kind.__name__ == "Image"
    assert (images.qos.reliability, images.qos.depth) == ("best effort", 1)
    latched = node.qos["~/match"]
    assert (latched.reliability, latched.durability) == ("reliable", "transient local")
    assert set(node.sent) == {"~/match", "~/pose", "/diagnostics"}
    assert len(node.subscriptions_made) == 1


@pytest.mark.parametrize("others", [{"sequence": 3, "odometry_topic": "/odom"}])
def test_odometry_is_read_where_a_topic_is_named(node: Any, frames: Frames) -> None:
    odometry = node.subscriptions_made[1]
    assert odometry.topic_name == "/odom" and odometry.kind.__name__ == "Odometry"
    assert (odometry.qos.reliability, odometry.qos.depth) == ("best effort", 1000)
    assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"
    for second in (1, 2):
        moved = odometry.kind()
        moved.header.stamp.sec = second
        moved.pose.pose.position.x, moved.pose.pose.orientation.w = second * APART_M, 1.0
        odometry.callback(moved)
        show(node, frames[second], second)
        first(node, "~/match", lambda said, at=second: said.header.stamp.sec == at)
    assert node.sent["~/match"][-1].frames == 2 and node.place.travel.fault is None


def test_states_follow_ros(node: Any) -> None:
    for name, state in (
        ("configure", State.INACTIVE),
        ("activate", State.ACTIVE),
        ("deactivate", State.INACTIVE),
        ("cleanup", State.UNCONFIGURED),
    ):
        assert getattr(node, f"on_{name}")(None).name == "SUCCESS"
        assert node.place.state is state
    assert node.on_activate(None).name == "FAILURE" and "unconfigured" in node.errors[0]


def test_services_fill_the_reply_that_rclpy_gives(node: Any) -> None:
    node.trigger_configure()
    assert set(node.services_made) == {f"~/{name}" for name in handlers.CHANGES}
    for name, request, works in (
        ("~/set_k", {"k": "0.5", "budget": ""}, True),
        ("~/set_k", {"k": "8", "budget": ""}, False),
        ("~/add_place", {"tag": "door"}, False),  # no image came yet
        ("~/save_map", {"name": "../x"}, False),
    ):
        kind, answer = node.services_made[name]
        reply = kind.Response()
        assert answer(kind.Request(**request), reply) is reply
        assert reply.success is works and reply.message


# ---- files ----


def test_the_yaml_file_holds_every_parameter_at_its_default(package: Path) -> None:
    from ruamel import yaml  # comes with rosbags

    text = (package / "config" / "place_node.yaml").read_text()
    held = yaml.YAML(typ="safe").load(text)["place_node"]["ros__parameters"]
    assert held == {name: default for name, default, _ in Parameters.table()}
    assert [type(held[name]) for name in held] == [type(d) for _, d, _ in Parameters.table()]


def test_the_page_holds_every_parameter(project_root: Path) -> None:
    page = (project_root / "docs" / "ros2.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.M))
    for name, default, _ in Parameters.table():
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert rows.get(name, "").strip() == (f"`{shown}`" if shown else ""), name


def test_what_is_imported_is_asked_for(package: Path) -> None:
    manifest = ElementTree.parse(package / "package.xml").getroot()
    asked = {each.text for each in manifest.findall("exec_depend")}
    imported = set()
    for path in sorted(package.rglob("*.py")):
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                imported.add(statement.module.split(".")[0])
            elif isinstance(statement, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in statement.names}
    ours = {"tatvpr_edge", "setuptools", "__future__"}
    standard = {"collections", "sys", "threading", "functools", "types", "typing"}
    assert imported - ours - standard == asked


def test_what_is_installed_exists(package: Path) -> None:
    text = (package / "setup.py").read_text()
    for name in re.findall(r'"((?:launch|config)/[^"]+|package\.xml)"', text):
        assert (package / name).is_file(), name
    assert (package / "resource" / package.name).is_file()


def test_the_launch_overrides_only_what_is_given(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclpy_stand_in.install_launch(monkeypatch)
    launch = runpy.run_path(str(package / "launch" / "place_node.launch.py"))
    *arguments, last = launch["generate_launch_description"]()
    context = {each.argument: each.default for each in arguments}
    assert set(launch["ARGUMENTS"]) <= {name for name, _, _ in Parameters.table()}
    for given in ({}, {"map": "/floor.placemap"}):
        (node,) = last.function({**context, **given})
        assert (node.package, node.executable) == ("tatvpr_edge_ros", "place_node")
        file, over = node.parameters
        assert file.name == "params_file" and over == given


@pytest.mark.parametrize("name", ["tatvpr_edge_msgs", "tatvpr_edge_ros"])
def test_manifests_are_of_format_3(project_root: Path, name: str) -> None:
    manifest = ElementTree.parse(project_root / "ros2" / name / "package.xml").getroot()
    assert manifest.tag == "package" and manifest.get("format") == "3"
    assert manifest.findtext("name") == name
    assert manifest.findtext("license") == "Apache-2.0"
