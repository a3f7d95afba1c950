"""How the camera moved from one image to the next, as a robot's ``nav_msgs/Odometry`` says.

In: poses, their times and frames, as they come. Out: what ``query(odometry=...)`` takes: the poses
nearest to two images' times. Odometry comes at 20 Hz and more, so that the nearest is some
centimetres off at most, and no image waits for the message behind it.

Two poses say how far the robot went where one odometry goes on from one to the other. It does not
where it began anew, its clock was set back, or another program's poses follow.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from tatvpr_edge.runtime.motion import Planar, planar
from tatvpr_edge.spec.errors import UsageError

Poses = tuple[list[float], list[float]]
#: A pose further than that from an image's time is none of its.
NEAR_S = 0.5
#: Messages overtake each other by less; a clock that goes back further was set back.
SET_BACK_S = 0.5
#: No robot is faster, nor silent for longer than ``_SILENT_S`` at that pace. Odometry corrects
#: itself by ``_CORRECTED_M`` from one message to the next.
_FASTEST_M_S = 100.0
_SILENT_S = 60.0
_CORRECTED_M = 1.0
#: Poses that are kept while no image comes.
_KEPT = 1000
_WRONG = "its position is no number, or its quaternion is not of length 1"


class _Heard(NamedTuple):
    time_s: float
    frame_id: str
    pose: list[float]
    at: Planar


class Travel:
    """Poses of odometry over the last seconds. For one thread."""

    def __init__(self) -> None:
        self._poses: deque[_Heard] = deque(maxlen=_KEPT)
        self._before: list[float] | None = None
        self._now: list[float] | None = None
        #: Of the messages since the last image: why a pose was left out, and why the poses before
        #: it no longer count.
        self._wrong: str | None = None
        self._broken: str | None = None
        #: Why the last image's motion is not known; None: it is, or the image is the first.
        self.fault: str | None = None

    def hear(self, time_s: float, frame_id: str, pose: list[float]) -> None:
        """A pose (x, y, z, qx, qy, qz, qw) of odometry, at ``time_s`` and in ``frame_id`` of its
        header."""
        try:
            heard = _Heard(time_s, frame_id, pose, planar(pose, _WRONG))
        except UsageError:
            self._wrong = _WRONG
            return
        broken = _broken(self._poses[-1], heard) if self._poses else None
        if broken:
            self._poses.clear()
            self._before, self._broken = None, broken
        self._poses.append(heard)

    def to(self, taken_s: float | None) -> Poses | None:
        """(before, now) of an image that was taken at ``taken_s``; None: it is not known, or there
        is none before."""
        wrong, self._wrong = self._wrong, None
        broken, self._broken = self._broken, None
        self._now, self.fault = None, broken
        if taken_s is None:
            self.fault = "images carry no time"
        elif not self._poses:
            self.fault = wrong or "none came"
        else:
            nearest = self._nearest(taken_s)
            off_s = abs(nearest.time_s - taken_s)
            if off_s <= NEAR_S:
                self._now = nearest.pose
            elif nearest.time_s == 0:
                self.fault = "its messages carry no time"
            else:
                self.fault = wrong or (
                    f"none within {NEAR_S:g} s of the last image's time, the nearest {off_s:.3g} s "
                    "off"
                )
        if self._before is None or self._now is None:
            return None
        return self._before, self._now

    def arrived(self) -> None:
        """That image was answered: the next one's way begins there."""
        self._before = self._now

    def restart(self) -> None:
        """The next image is the first of a path."""
        self._before = self._now = None

    def _nearest(self, taken_s: float) -> _Heard:
        nearest = min(self._poses, key=lambda known: abs(known.time_s - taken_s))
        while self._poses[0].time_s < nearest.time_s - NEAR_S:  # later images are not of before
            self._poses.popleft()
        return nearest


def _broken(last: _Heard, heard: _Heard) -> str | None:
    """Why ``heard`` does not go on from ``last``; None: it does."""
    if heard.frame_id != last.frame_id:
        return f"its frame_id became {heard.frame_id!r}, and was {last.frame_id!r}"
    apart_s = heard.time_s - last.time_s
    if apart_s < -SET_BACK_S:
        return f"its clock was set back by {-apart_s:.3g} s"
    metres = math.dist(last.at[:2], heard.at[:2])
    if metres > _CORRECTED_M + _FASTEST_M_S * min(abs(apart_s), _SILENT_S):
        return (
            f"it jumped {metres:.3g} m in {abs(apart_s):.3g} s: it began anew, or two programs "
            "publish it"
        )
    return None
