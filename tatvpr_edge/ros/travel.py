"""How the camera moved from one image to the next, as a robot's ``nav_msgs/Odometry`` says.

In: poses and their times, as they come. Out: what ``query(odometry=...)`` takes: the poses nearest
to two images' times. Odometry comes at 20 Hz and more, so that the nearest is some centimetres off
at most, and no image waits for the message behind it.
"""

from __future__ import annotations

from collections import deque

from tatvpr_edge.runtime.motion import check_odometry
from tatvpr_edge.spec.errors import UsageError

Poses = tuple[list[float], list[float]]
#: A pose further than that from an image's time is none of its.
NEAR_S = 0.5
#: Poses that are kept while no image comes.
_KEPT = 1000


class Travel:
    """Poses of odometry over the last seconds. For one thread."""

    def __init__(self) -> None:
        self._poses: deque[tuple[float, list[float]]] = deque(maxlen=_KEPT)
        self._before: list[float] | None = None
        self._now: list[float] | None = None
        #: Why the last image's motion is not known; None: it is, or the image is the first.
        self.fault: str | None = None

    def hear(self, time_s: float, pose: list[float]) -> None:
        """A pose (x, y, z, qx, qy, qz, qw) of odometry, at ``time_s`` of its header."""
        self._poses.append((time_s, pose))

    def to(self, taken_s: float | None) -> Poses | None:
        """(before, now) of an image that was taken at ``taken_s``; None: it is not known, or there
        is none before."""
        self._now, self.fault = self._near(taken_s), None
        if taken_s is None:
            self.fault = "images carry no time"
        elif self._now is None:
            self.fault = f"none within {NEAR_S:g} s of the last image's time"
        if self._before is None or self._now is None:
            return None
        try:
            check_odometry((self._before, self._now))
        except UsageError as error:  # a robot drives on without it
            self.fault = str(error)
            return None
        return self._before, self._now

    def arrived(self) -> None:
        """That image was answered: the next one's way begins there."""
        self._before = self._now

    def restart(self) -> None:
        """The next image is the first of a path."""
        self._before = self._now = None

    def _near(self, taken_s: float | None) -> list[float] | None:
        if taken_s is None or not self._poses:
            return None
        time_s, pose = min(self._poses, key=lambda known: abs(known[0] - taken_s))
        while self._poses[0][0] < time_s - NEAR_S:  # later images are not of before
            self._poses.popleft()
        return pose if abs(time_s - taken_s) <= NEAR_S else None
