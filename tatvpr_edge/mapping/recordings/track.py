"""Poses over time, as a topic of a bag tells them, and between its messages."""

from __future__ import annotations

import bisect
import math
from array import array
from typing import Any

import numpy as np

from tatvpr_edge.mapping.recordings.frames import Pose
from tatvpr_edge.mapping.rotation import slerp
from tatvpr_edge.spec.errors import DataError

#: Message types of poses and the pose frame that each says.
POSE_TYPES = {
    "nav_msgs/msg/Odometry": "local",
    "geometry_msgs/msg/PoseStamped": "local",
    "geometry_msgs/msg/PoseWithCovarianceStamped": "local",
    "sensor_msgs/msg/NavSatFix": "geographic",
}
#: Between two poses further apart in time than this nobody knows where the robot was.
LONGEST_GAP_S = 5.0
#: Messages may come a little out of order; a clock that goes back by more was set back.
_OUT_OF_ORDER_NS = 1_000_000_000


class Track:
    """Where the robot was, at any time that lies between two poses."""

    def __init__(self, topic: str, frame: str) -> None:
        self.topic = topic
        self.frame = frame
        self._times_ns = array("q")
        self._values = array("d")
        self._newest_ns: int | None = None
        #: Times that came twice, (from, to) in ns: there is no knowing which pose belongs to them.
        self.twice_ns: list[tuple[int, int]] = []
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._times_ns)

    def add(self, time_ns: int, message: Any) -> None:
        """One message of the topic; one without a position (a receiver without a fix) says
        nothing."""
        pose = _pose(message)
        if pose is not None:
            if self._newest_ns is not None and time_ns < self._newest_ns - _OUT_OF_ORDER_NS:
                self.twice_ns.append((time_ns, self._newest_ns))
                self._newest_ns = time_ns
            self._newest_ns = max(time_ns, self._newest_ns or time_ns)
            self._times_ns.append(time_ns)
            self._values.extend(pose)
            self._sorted = None

    def at(self, time_ns: int) -> Pose | None:
        """The pose at that time: positions on the line between two messages, orientations on the
        shortest turn. None before the first, after the last, in a gap of more than 5 s, and at
        times that came twice."""
        if any(first <= time_ns <= last for first, last in self.twice_ns):
            return None
        times, values = self._in_order()
        after = bisect.bisect_left(times, time_ns)
        if after < len(times) and times[after] == time_ns:
            return _tuple(values[after])
        if after in (0, len(times)):
            return None
        gap_ns = int(times[after]) - int(times[after - 1])
        if gap_ns > LONGEST_GAP_S * 1e9:
            return None
        part = (time_ns - int(times[after - 1])) / gap_ns
        before, later = values[after - 1], values[after]
        step = later - before
        if self.frame == "geographic":  # the short way across the 180th meridian
            step[0] = (step[0] + 180.0) % 360.0 - 180.0
        pose = before + part * step
        if self.frame == "geographic":
            pose[0] = (pose[0] + 180.0) % 360.0 - 180.0
        pose[3:] = slerp(before[3:], later[3:], part)
        return _tuple(pose)

    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        """(times int64 [N], poses float64 [N, 7]), by time, each time once."""
        if self._sorted is None:
            times = np.frombuffer(self._times_ns, np.int64)
            values = np.frombuffer(self._values, np.float64).reshape(-1, 7)
            _, rows = np.unique(times, return_index=True)
            self._sorted = times[rows], values[rows]
        return self._sorted


def _pose(message: Any) -> tuple[float, ...] | None:
    if hasattr(message, "latitude"):
        if message.status.status < 0:
            return None
        place = (message.longitude, message.latitude, message.altitude)
        turn = (math.nan,) * 4
    else:
        pose = message.pose
        pose = getattr(pose, "pose", pose)  # with covariance it lies one deeper
        place = (pose.position.x, pose.position.y, pose.position.z)
        turn = (pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w)
    if not (math.isfinite(place[0]) and math.isfinite(place[1])):
        return None
    length = math.sqrt(sum(value * value for value in turn))
    # A quaternion of zeros is what a driver sends that knows no orientation.
    known = math.isfinite(length) and length > 1e-6
    height = place[2] if math.isfinite(place[2]) else math.nan
    turned = [value / length for value in turn] if known else [math.nan] * 4
    return (float(place[0]), float(place[1]), float(height), *turned)


def _tuple(values: np.ndarray) -> Pose:
    x, y, z, qx, qy, qz, qw = (float(value) for value in values)
    return x, y, z, qx, qy, qz, qw


def need_poses(track: Track, path: object) -> None:
    """Raise DataError where a topic told no position at all."""
    if not len(track):
        raise DataError(f"{path}: {track.topic} tells no position (no message with a fix)")
