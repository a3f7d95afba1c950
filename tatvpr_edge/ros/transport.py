"""What carries the node: the interface that cyclonedds and rclpy fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Transport(Protocol):
    """Topics of one node. Calls may come from any thread.

    Attributes:
        types: the message classes by their ROS names without package, as ``types.PlaceMatch``;
            each is made from keywords and lets its fields be set.
    """

    types: Any

    def next_image(self, timeout_s: float) -> Any | None:
        """The newest image that was not given yet; None where none comes within ``timeout_s``.

        Older ones that were not asked for are dropped, so that a slow answer is never late twice.
        """
        ...

    def odometry(self) -> Sequence[Any]:
        """``nav_msgs/Odometry`` messages that came since the last call, the oldest first; none
        where the parameter ``odometry_topic`` is empty."""
        ...

    def publish(self, output: str, message: Any) -> None:
        """Send ``message`` to "match", "pose" or "diagnostics"."""
        ...

    def cameras(self) -> int:
        """Publishers of the image topic that are known now."""
        ...

    def now_ns(self) -> int:
        """The node's clock, in nanoseconds since 1970 (or since a simulation began)."""
        ...
