"""``ros2 run tatvpr_edge_ros place_node``: the node of ``tatvpr_edge.ros`` on rclpy.

In: the topics and parameters of ROS. Out: the same through :class:`tatvpr_edge.ros.PlaceNode`,
which does everything; here are only names of messages and where they go.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import Any

try:
    import rclpy
    from builtin_interfaces.msg import Time
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
    from geometry_msgs.msg import (
        Point,
        Pose,
        PoseWithCovariance,
        PoseWithCovarianceStamped,
        Quaternion,
    )
    from nav_msgs.msg import Odometry
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
    from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header
    from tatvpr_edge_msgs.msg import PlaceMatch
    from tatvpr_edge_msgs.srv import AddPlace, SaveMap, SetK
except ImportError as error:
    raise ImportError(
        f"{error}: source ROS 2 and the workspace that holds tatvpr_edge_msgs, or run "
        "'python -m tatvpr_edge.ros', which needs neither"
    ) from error

from tatvpr_edge.ros import Parameters, PlaceNode, handlers
from tatvpr_edge.spec.errors import TatvprError

_LATEST = {
    "history": HistoryPolicy.KEEP_LAST,
    "reliability": ReliabilityPolicy.BEST_EFFORT,
    "durability": DurabilityPolicy.VOLATILE,
}
SENSOR = QoSProfile(depth=1, **_LATEST)
ODOMETRY = QoSProfile(depth=1000, **_LATEST)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
TYPES = SimpleNamespace(
    DiagnosticArray=DiagnosticArray,
    DiagnosticStatus=DiagnosticStatus,
    Header=Header,
    KeyValue=KeyValue,
    PlaceMatch=PlaceMatch,
    Point=Point,
    Pose=Pose,
    PoseWithCovariance=PoseWithCovariance,
    PoseWithCovarianceStamped=PoseWithCovarianceStamped,
    Quaternion=Quaternion,
    Time=Time,
)
SERVICES = {"add_place": AddPlace, "save_map": SaveMap, "set_k": SetK}


class RclpyTransport:
    """A ``tatvpr_edge.ros.Transport`` over the topics of ``node``."""

    types = TYPES

    def __init__(self, node: LifecycleNode, parameters: Parameters) -> None:
        self._node = node
        self._came = threading.Condition()
        self._newest: Any = None
        topic, kind = parameters.image_topic, Image
        if parameters.image_transport == "compressed":
            topic, kind = f"{topic}/compressed", CompressedImage
        self._images = node.create_subscription(
            kind, topic, self._take, SENSOR, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._moved: deque[Any] = deque(maxlen=ODOMETRY.depth)
        if parameters.odometry_topic:
            node.create_subscription(
                Odometry,
                parameters.odometry_topic,
                self._moved.append,
                ODOMETRY,
                callback_group=MutuallyExclusiveCallbackGroup(),
            )
        # Plain publishers: diagnostics go out in every state, answers only while it is active.
        self._publishers = {
            "match": node.create_publisher(PlaceMatch, "~/match", LATCHED),
            "pose": node.create_publisher(PoseWithCovarianceStamped, "~/pose", 10),
            "diagnostics": node.create_publisher(DiagnosticArray, "/diagnostics", 10),
        }

    def _take(self, message: Any) -> None:
        with self._came:
            self._newest = message
            self._came.notify()

    def next_image(self, timeout_s: float) -> Any | None:
        """The newest image; None where none comes in time."""
        with self._came:
            self._came.wait_for(lambda: self._newest is not None, timeout_s)
            message, self._newest = self._newest, None
            return message

    def odometry(self) -> list[Any]:
        """Messages of odometry that came since the last call."""
        return [self._moved.popleft() for _ in range(len(self._moved))]

    def publish(self, output: str, message: Any) -> None:
        """Send ``message`` to "match", "pose" or "diagnostics"."""
        self._publishers[output].publish(message)

    def cameras(self) -> int:
        """Publishers of the image topic that are known now."""
        return int(self._node.count_publishers(self._images.topic_name))

    def now_ns(self) -> int:
        """The node's clock: simulated where use_sim_time says so."""
        return int(self._node.get_clock().now().nanoseconds)


class RosNode(LifecycleNode):
    """The lifecycle node; its parameters are those of ``tatvpr_edge.ros.Parameters``."""

    def __init__(self) -> None:
        super().__init__("place_node")
        # A file may say k: 0.2 where "auto" is allowed too.
        any_type = ParameterDescriptor(dynamic_typing=True)
        given = {
            name: self.declare_parameter(name, default, any_type).value
            for name, default, _ in Parameters.table()
        }
        self.parameters = Parameters.of(given)
        self.place = PlaceNode(
            self.parameters, RclpyTransport(self, self.parameters), self.get_name()
        )
        if self.parameters.services:
            group = ReentrantCallbackGroup()
            for name, handler in handlers.CHANGES.items():
                answer = partial(handlers.answered, handler, self.place)
                self.create_service(SERVICES[name], f"~/{name}", answer, callback_group=group)

    def _change(self, transition: str) -> TransitionCallbackReturn:
        try:
            self.place.change(transition)
        except (TatvprError, OSError) as error:
            self.get_logger().error(f"{transition}: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Open the artifact and its map."""
        return self._change("configure")

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Answer images from now on."""
        return self._change("activate")

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Answer no more."""
        return self._change("deactivate")

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Give back what was opened."""
        return self._change("cleanup")

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """End."""
        self.place.shutdown()
        return TransitionCallbackReturn.SUCCESS


def main() -> None:
    """Run until it is interrupted or shut down."""
    rclpy.init()
    try:
        node = RosNode()
    except TatvprError as error:
        sys.exit(f"error: {error}")
    executor = MultiThreadedExecutor(num_threads=3)
    executor.add_node(node)
    if node.parameters.autostart:
        started = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() != started or node.trigger_activate() != started:
            sys.exit(1)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.place.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
