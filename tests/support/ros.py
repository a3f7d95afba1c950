"""Images as ROS messages, and a transport for the node, both without middleware."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Metres between two scenes of the tests' map.
APART_M = 2.0
WAIT_S = 30.0


def image(frame: NDArray[np.uint8], seconds: float = 5.0, frame_id: str = "camera") -> Any:
    """A ``sensor_msgs/Image`` by the names of its fields."""
    height, width = frame.shape[:2]
    stamp = SimpleNamespace(sec=int(seconds), nanosec=round((seconds - int(seconds)) * 1e9))
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id=frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=frame.tobytes(),
    )


def odometry(pose: Sequence[float], seconds: float, frame_id: str = "odom") -> Any:
    """A ``nav_msgs/Odometry`` of a pose (x, y, z, qx, qy, qz, qw)."""
    position = SimpleNamespace(**dict(zip("xyz", pose[:3], strict=True)))
    orientation = SimpleNamespace(**dict(zip("xyzw", pose[3:], strict=True)))
    stamp = SimpleNamespace(sec=int(seconds), nanosec=round((seconds - int(seconds)) * 1e9))
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id=frame_id),
        pose=SimpleNamespace(pose=SimpleNamespace(position=position, orientation=orientation)),
    )


class _Status(SimpleNamespace):
    OK, WARN, ERROR, STALE = range(4)


class InMemory:
    """A transport without middleware: images are put into :attr:`images`, answers collected."""

    def __init__(self) -> None:
        names = (
            "Time Header Point Quaternion Pose PoseWithCovariance PoseWithCovarianceStamped "
            "KeyValue DiagnosticArray PlaceMatch"
        )
        self.types: Any = SimpleNamespace(
            DiagnosticStatus=_Status, **dict.fromkeys(names.split(), SimpleNamespace)
        )
        self.images: queue.Queue[Any] = queue.Queue()
        self.sent: dict[str, queue.Queue[Any]] = {
            name: queue.Queue() for name in ("match", "pose", "diagnostics")
        }
        self.publishers = 1
        self.moved: list[Any] = []

    def next_image(self, timeout_s: float) -> Any | None:
        try:
            message = self.images.get(timeout=timeout_s)
        except queue.Empty:
            return None
        while not self.images.empty():
            message = self.images.get()
        return message

    def odometry(self) -> list[Any]:
        moved, self.moved = self.moved, []
        return moved

    def publish(self, output: str, message: Any) -> None:
        self.sent[output].put(message)

    def cameras(self) -> int:
        return self.publishers

    def now_ns(self) -> int:
        return 7_000_000_001


def wait_diagnostics(memory: InMemory, wanted: Callable[[Any], bool]) -> Any:
    """The first status that is as wanted."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        status = memory.sent["diagnostics"].get(timeout=WAIT_S).status[0]
        if wanted(status):
            return status
    raise AssertionError(f"the last diagnostics were {status}")
