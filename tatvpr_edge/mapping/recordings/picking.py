"""Which frames of a recording are taken: by distance or time, because not all are wanted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping.coordinates import metres_apart
from tatvpr_edge.mapping.recordings.frames import Pose
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.values import between, wrong

#: Taken by default: a frame each metre where poses are known, else one each half second.
DISTANCE_M, EVERY_S = 1.0, 0.5
_NS = 1_000_000_000
#: Share of the time between frames that one may be early: a camera's clock jitters.
_EARLY = 0.05
#: A frame may come so much too late: its clock was set back where it is by more.
_LATE_NS = 100_000_000


@dataclass(frozen=True)
class Picking:
    """Which frames of a recording, and where its poses are.

    Attributes:
        topic: of images; None: the only one.
        poses_topic: of Odometry, PoseStamped, PoseWithCovarianceStamped or NavSatFix; None: none.
        distance_m: metres from a frame to the next; None: see ``every_s``.
        every_s: seconds from a frame to the next, 0: all frames. With neither: a metre where there
            is a ``poses_topic``, else half a second.
    """

    topic: str | None = None
    poses_topic: str | None = None
    distance_m: float | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        for name, topic in (("topic", self.topic), ("poses_topic", self.poses_topic)):
            if topic is not None and not (isinstance(topic, str) and topic):
                raise wrong(topic, name, 'a topic of the bag, such as "/camera/image_raw", or None')
        if self.distance_m is not None and self.every_s is not None:
            raise UsageError("frames are taken by distance or by time: give one of the two")
        if self.distance_m is not None and self.poses_topic is None:
            raise UsageError(
                "a distance between frames needs poses: give --poses-topic, or of a video --every"
            )
        for name, value, least in (
            ("distance_m", self.distance_m, 1e-3),
            ("every_s", self.every_s, 0.0),
        ):
            if value is not None:
                meaning = f"it must be a number of {least:g} or more"
                between(value, least, sys.float_info.max, name, meaning)

    @property
    def by_distance_m(self) -> float | None:
        """The distance that is kept; None: frames are taken by time."""
        if self.distance_m is None and self.every_s is None and self.poses_topic is not None:
            return DISTANCE_M
        return self.distance_m

    @property
    def by_time_s(self) -> float:
        """The time that is kept where no distance is."""
        return EVERY_S if self.every_s is None else self.every_s

    def said(self) -> str:
        """The options that were given, for messages."""
        given = {
            "--topic": self.topic,
            "--poses-topic": self.poses_topic,
            "--distance": self.distance_m,
            "--every": self.every_s,
        }
        return ", ".join(name for name, value in given.items() if value is not None)

    def refuse_topics(self, path: Path) -> None:
        """Raise UsageError where topics are given for a video."""
        if self.topic is not None or self.poses_topic is not None:
            raise UsageError(f"{path} is a video, which has no topics: leave {self.said()} out")


class Picker:
    """Says of frame after frame whether it is taken."""

    def __init__(self, picking: Picking, pose_frame: str = "local") -> None:
        self._distance_m = picking.by_distance_m
        self._every_ns = round((1 - _EARLY) * picking.by_time_s * _NS)
        self._pose_frame = pose_frame
        self._last_ns: int | None = None
        self._last_at: np.ndarray | None = None

    @property
    def needs_poses(self) -> bool:
        """Whether a frame of unknown pose cannot be taken."""
        return self._distance_m is not None

    def takes(self, time_ns: int, pose: Pose | None) -> bool:
        """Whether the frame is far enough from the one taken last."""
        if self._distance_m is None:
            # A clock that was set back begins anew.
            last = self._last_ns
            gap_ns = self._every_ns if last is None else time_ns - last
            if -_LATE_NS <= gap_ns < self._every_ns and self._every_ns:
                return False
            self._last_ns = time_ns
            return True
        if pose is None:
            return False
        here = np.array([pose[:2]])
        if self._last_at is None:
            far = True
        else:
            apart_m = metres_apart(here, self._last_at, self._pose_frame)[0, 0]
            far = bool(apart_m >= self._distance_m)
        if far:
            self._last_at = here
        return far
