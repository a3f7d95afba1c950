"""As much of rclpy and of generated messages as ``ros2/tatvpr_edge_ros`` calls, in one process.

It is no ROS: it shows that the node's file runs, registers what it should under the right names,
and hands each message on. Messages take keywords and check types as rclpy's generated classes do,
from the definitions in rosbags' type store.
"""

from __future__ import annotations

import array
import enum
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

#: Python type of each primitive, as rclpy's generated setters assert it.
_KINDS: dict[str, tuple[type, Any]] = {
    "bool": (bool, False),
    "byte": (bytes, b"\0"),
    "string": (str, ""),
    **dict.fromkeys(("float32", "float64"), (float, 0.0)),
    **{f"{sign}int{bits}": (int, 0) for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_PRIMITIVE, _NAME, _ARRAY, _SEQUENCE = 1, 2, 3, 4


def message_class(store: Any, name: str) -> type:
    """A class like the one that rosidl generates for ``package/msg/Name``."""
    constants, described = store.fielddefs[name]

    def blank(kind: Any) -> Any:
        node, detail = int(kind[0]), kind[1]
        if node == _PRIMITIVE:
            return _KINDS[detail[0]][1]
        if node == _NAME:
            return message_class(store, detail)()
        if node == _ARRAY:
            return np.zeros(detail[1])
        return []

    def checked(field: str, kind: Any, value: Any) -> Any:
        node, detail = int(kind[0]), kind[1]
        if node == _PRIMITIVE:
            python = _KINDS[detail[0]][0]
            right = isinstance(value, python) and (python is bool or not isinstance(value, bool))
            assert right, f"{name}.{field} is {value!r}, a {type(value).__name__}"
        elif node == _NAME:
            assert type(value).__name__ == detail.rsplit("/", 1)[1], f"{name}.{field}"
        elif node == _ARRAY:
            assert len(value) == detail[1] and all(isinstance(v, float) for v in value), field
        return value

    fields = dict(described)

    class Message:
        def __init__(self, **given: Any) -> None:
            assert set(given) <= set(fields), set(given) - set(fields)
            for field, kind in fields.items():
                setattr(self, field, given.get(field, blank(kind)))

        def __setattr__(self, field: str, value: Any) -> None:
            object.__setattr__(self, field, checked(field, fields[field], value))

    for constant, kind, value in constants:
        setattr(Message, constant, bytes([value]) if kind == "byte" else value)
    Message.__name__ = Message.__qualname__ = name.rsplit("/", 1)[1]
    return Message


class TransitionCallbackReturn(enum.Enum):
    SUCCESS = 1
    FAILURE = 2


class LifecycleNode:
    """One node: what was made with it stands in its attributes."""

    values: dict[str, Any] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions_made: list[Any] = []
        self.sent: dict[str, list[Any]] = {}
        self.qos: dict[str, Any] = {}
        self.services_made: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self.errors: list[str] = []
        self.came = threading.Condition()

    def get_name(self) -> str:
        return self.name

    def declare_parameter(self, name: str, default: Any, descriptor: Any) -> Any:
        assert descriptor.dynamic_typing
        return SimpleNamespace(value=self.values.get(name, default))

    def create_subscription(
        self, kind: Any, topic: str, callback: Any, qos: Any, *, callback_group: Any
    ) -> Any:
        made = SimpleNamespace(kind=kind, topic_name=topic, callback=callback, qos=qos)
        self.subscriptions_made.append(made)
        return made

    def create_publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        self.sent[topic], self.qos[topic] = [], qos

        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            with self.came:
                self.sent[topic].append(message)
                self.came.notify_all()

        return SimpleNamespace(publish=publish)

    def create_service(self, kind: Any, name: str, answer: Any, *, callback_group: Any) -> None:
        self.services_made[name] = (kind, answer)

    def count_publishers(self, topic: str) -> int:
        return 1

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=5 * 10**9 + 7))

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.errors.append)

    def trigger_configure(self) -> Any:
        return self.on_configure(None)  # type: ignore[attr-defined]

    def trigger_activate(self) -> Any:
        return self.on_activate(None)  # type: ignore[attr-defined]


def install(patch: pytest.MonkeyPatch, store: Any) -> None:
    """Make ``import rclpy`` and imports of messages find what is in this file."""

    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        patch.setitem(sys.modules, name, made)

    def messages(package: str, *names: str) -> None:
        module(package)
        kinds = {name: message_class(store, f"{package}/msg/{name}") for name in names}
        module(f"{package}.msg", **kinds)

    messages("builtin_interfaces", "Time")
    messages("std_msgs", "Header")
    messages("sensor_msgs", "Image", "CompressedImage")
    messages("diagnostic_msgs", "DiagnosticArray", "DiagnosticStatus", "KeyValue")
    poses = ("Pose", "PoseWithCovariance", "PoseWithCovarianceStamped")
    messages("geometry_msgs", "Point", "Quaternion", *poses)
    messages("nav_msgs", "Odometry")
    messages("tatvpr_edge_msgs", "PlaceMatch")
    services = {
        name: SimpleNamespace(
            Request=message_class(store, f"tatvpr_edge_msgs/srv/msg/{name}_Request"),
            Response=message_class(store, f"tatvpr_edge_msgs/srv/msg/{name}_Response"),
        )
        for name in ("AddPlace", "SaveMap", "SetK")
    }
    module("tatvpr_edge_msgs.srv", **services)
    module("rcl_interfaces")
    module("rcl_interfaces.msg", ParameterDescriptor=SimpleNamespace)
    group = SimpleNamespace
    module("rclpy", init=lambda: None, try_shutdown=lambda: None)
    module(
        "rclpy.callback_groups", MutuallyExclusiveCallbackGroup=group, ReentrantCallbackGroup=group
    )
    module(
        "rclpy.executors",
        ExternalShutdownException=type("ExternalShutdownException", (Exception,), {}),
        MultiThreadedExecutor=group,
    )
    module(
        "rclpy.lifecycle",
        LifecycleNode=LifecycleNode,
        TransitionCallbackReturn=TransitionCallbackReturn,
    )
    words = SimpleNamespace(
        KEEP_LAST="keep last",
        BEST_EFFORT="best effort",
        RELIABLE="reliable",
        VOLATILE="volatile",
        TRANSIENT_LOCAL="transient local",
    )
    module(
        "rclpy.qos",
        DurabilityPolicy=words,
        HistoryPolicy=words,
        QoSProfile=SimpleNamespace,
        ReliabilityPolicy=words,
    )


def install_launch(patch: pytest.MonkeyPatch) -> None:
    """Make imports of ``launch`` and ``launch_ros`` find as much as a launch file of one node asks
    for; a context is a dict of what was given."""

    def module(name: str, **members: Any) -> None:
        made = ModuleType(name)
        vars(made).update(members)
        patch.setitem(sys.modules, name, made)

    def configuration(name: str) -> Any:
        return SimpleNamespace(name=name, perform=lambda context: context[name])

    def argument(name: str, *, default_value: Any) -> Any:
        return SimpleNamespace(argument=name, default=default_value)

    module("launch", LaunchContext=dict, LaunchDescription=list)
    module("launch.actions", DeclareLaunchArgument=argument, OpaqueFunction=SimpleNamespace)
    module("launch.substitutions", LaunchConfiguration=configuration, PathJoinSubstitution=list)
    module("launch_ros")
    module("launch_ros.actions", LifecycleNode=SimpleNamespace)
    module("launch_ros.substitutions", FindPackageShare=str)


def octets(data: bytes) -> Any:
    """``uint8[]`` as rclpy gives it."""
    return array.array("B", data)
