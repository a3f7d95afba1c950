"""``LoopCloser``: places seen before, found again while the map of the drive grows.

One frame that looks like an old place is no proof: long walls and halls look alike. A loop is
closed where several answers in a row, over some metres of driving, say that the robot moves along
its old way as its odometry says it moves now. Answers that stand still while the robot drives, or
jump, agree with nothing; what a robot is answered while it stands is one answer.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.arguments import check_excluded, check_time
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.growth import Addition, check_terms
from tatvpr_edge.runtime.mapwriter import full_pose
from tatvpr_edge.runtime.motion import planar, seen_from
from tatvpr_edge.runtime.tracking import calibrated_for
from tatvpr_edge.runtime.verdict import calibrating_sequences
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.values import above, between, whole, wrong

if TYPE_CHECKING:
    from tatvpr_edge.runtime.localizer import Localizer
    from tatvpr_edge.runtime.match import Match

#: So many metres of odometry are no driving but its noise, which adds up while a robot waits.
_STANDS_M = 0.1
#: Where the clock leaps by more than so many seconds it was set.
_SET_S = 1.0
_POSE = "(x, y, z, qx, qy, qz, qw), a quaternion of length 1: a loop closes along a heading"


@dataclass(frozen=True)
class Closure:
    """The robot is where it was before.

    Attributes:
        tag, place: of the place that was found again, as it was added.
        then: its pose (x, y, heading) by the odometry of that time, in metres and radians.
        now: the pose of the frame that found it, by odometry now. How far the two are apart is
            what odometry has drifted, give or take the distance between places.
        answers: how many answers agree.
    """

    tag: str
    place: int
    then: tuple[float, float, float]
    now: tuple[float, float, float]
    answers: int

    @property
    def drift_m(self) -> float:
        """How far apart odometry believes the two are."""
        return math.dist(self.then[:2], self.now[:2])


@dataclass(frozen=True)
class Step:
    """What one frame gave. ``match`` is None while the map holds no places; where a loop was closed
    and the frame could not be added, ``addition.reason`` says why."""

    match: Match | None
    addition: Addition
    closure: Closure | None


@dataclass(frozen=True)
class _Answer:
    now: tuple[float, float, float]
    then: tuple[float, float, float]
    travelled_m: float


@dataclass
class _Stop:
    """A stop of the way just driven: when the robot came, and was there last, by the clock."""

    travelled_m: float
    from_s: float
    until_s: float


@dataclass
class _Clock:
    """A stretch of driving along which nobody set the clock.

    Attributes:
        offset_s: what it was ahead of the closer's own count of time.
        from_s, until_s: by that count.
    """

    offset_s: float
    from_s: float
    until_s: float


class LoopCloser:
    """Asks the localizer's map about every frame, closes loops, and adds the frame to the map.

    The map has to be calibrated (a new one: ``MapWriter(PATH, localizer, like=CALIBRATED)``):
    nothing else says which answers count. Not to be shared between threads.

    Args:
        localizer: with the map that grows set as its map.
        exclude_last: as :meth:`Localizer.query`: the way just driven closes no loop. In seconds,
            of a slow robot at least what was seen along the last ``window_m``, and what this object
            saw within them where the clock was set meanwhile.
        agree: so many answers have to agree, this one included ...
        baseline_m: ... over at least so many metres of driving ...
        window_m: ... and at most so many.
        tolerance_m, tolerance_share: movements agree that differ by no more than this, plus this
            share of the way between them.
        height_m: by odometry, place and robot are no further apart in height, where both heights
            are known: a drone above its old way, or a robot on another floor, closes no loop. None:
            heights are not looked at.
        novelty, novelty_m, max_places, max_bytes: as :meth:`Localizer.add`.

    Raises:
        UsageError: an argument is out of range, or the map is geographic, or not calibrated for
            what the localizer asks it: single frames, or sequences.
        MapError: the localizer has no map.
    """

    def __init__(
        self,
        localizer: Localizer,
        *,
        exclude_last: int | str = "30s",
        agree: int = 6,
        baseline_m: float = 5.0,
        window_m: float = 8.0,
        tolerance_m: float = 0.8,
        tolerance_share: float = 0.15,
        height_m: float | None = None,
        novelty: float | None = None,
        novelty_m: float | None = None,
        max_places: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        whole(agree, 2, "agree", "how many answers have to agree, at least 2")
        above(baseline_m, 0, "baseline_m", "metres of driving, above 0")
        above(window_m, baseline_m, "window_m", "metres of driving, above baseline_m")
        between(tolerance_m, 0, 1e9, "tolerance_m", "metres, 0 or more")
        if between(tolerance_share, 0, 1, "tolerance_share", "from 0 to below 1") == 1:
            raise wrong(tolerance_share, "tolerance_share", "from 0 to below 1")
        if tolerance_m >= window_m * (1 - tolerance_share):
            raise UsageError(
                f"tolerance_m={tolerance_m:g}: within window_m={window_m:g}, an answer that stands "
                "still would agree with every movement: give less"
            )
        if height_m is not None:
            above(height_m, 0, "height_m", "metres, above 0")
        excluded = check_excluded(exclude_last)
        check_terms(novelty, novelty_m, max_places, max_bytes)
        if not hasattr(localizer, "map"):
            raise wrong(localizer, "localizer", "a Localizer with the map that grows")
        place_map = localizer.map
        if place_map is None or any(b.calibration is None for b in place_map.info.bands):
            raise UsageError(
                "a loop is closed by answers that a calibrated map accepts: make the map with "
                "MapWriter(PATH, localizer, like=CALIBRATED), or run 'tatvpr-edge map calibrate'"
            )
        frames = getattr(localizer, "_sequence", 1)  # a FakeLocalizer has none
        if frames > 1 and any(calibrated_for(b, frames) is None for b in place_map.info.bands):
            raise UsageError(
                f"map {place_map.path} judges no sequences of {frames} frames, and closes no loop "
                "by them: give a Localizer without sequence, or "
                + calibrating_sequences(place_map.path, frames)
            )
        if place_map.info.pose_frame == "geographic":
            raise UsageError(
                f"map {place_map.path} is of degrees, and loops are closed in metres: make it with "
                "MapWriter(PATH, localizer, like=CALIBRATED) of a map that is local or utm"
            )
        self._localizer = localizer
        self._exclude_last = exclude_last
        self._exclude_s = excluded if isinstance(excluded, float) else None
        self._agree, self._baseline_m, self._window_m = agree, baseline_m, window_m
        # Of a small robot's rules, too, as many answers as have to agree find room.
        self._stands_m = min(_STANDS_M, baseline_m / (2 * agree))
        self._tolerance = tolerance_m, tolerance_share
        self._height_m = height_m
        self._novelty, self._novelty_m = novelty, novelty_m
        self._max_places, self._max_bytes = max_places, max_bytes
        self._answers: deque[_Answer] = deque()
        self._before: tuple[float, float] | None = None
        self._travelled_m = 0.0
        self._way: deque[_Stop] = deque()  # what a query leaves out in seconds, however long ago
        self._clocks: deque[_Clock] = deque()  # of the last seconds, in order
        self._age_s = 0.0  # how long the closer has been driving, whatever the clock said
        self._last: tuple[bool, float, float] | None = None  # whether live, our clock, the frame's

    def step(
        self,
        frame: NDArray[np.uint8] | CameraFrame,
        pose: Sequence[float] | NDArray[np.float64],
        tag: str = "",
        *,
        time_s: float | None = None,
        bgr: bool = False,
    ) -> Step:
        """One frame of the drive.

        Args:
            pose: (x, y, z, qx, qy, qz, qw) by odometry, in metres: what the map keeps.
            tag: of the place; a closure names it.
            time_s: when it was taken, in seconds since 1970; None: now.

        Raises:
            FrameError, MapError, UsageError: as ``Localizer.query`` and ``add``; nothing was added.
                A loop that this frame closes is told all the same, see :class:`Step`: the MapError
                of a full disk comes with the next frame that closes none.
        """
        now = planar(pose, _POSE)
        full_pose(pose)  # what no map takes would end the way here
        taken_s = check_time(time_s)
        self._pass(now, taken_s, live=time_s is None)
        place_map = self._localizer.map
        match = closure = None
        if place_map is not None and len(place_map):
            match = self._localizer.query(
                frame, bgr, exclude_last=self._excluded(taken_s), time_s=taken_s
            )
        if match is not None and match.accepted and match.pose is not None:
            closure = self._judge(match, now, float(pose[2]))
        try:
            addition = self._localizer.add(
                frame,
                pose,
                tag,
                match=match,
                novelty=self._novelty,
                novelty_m=self._novelty_m,
                max_places=self._max_places,
                max_bytes=self._max_bytes,
                time_s=taken_s,
                bgr=bgr,
            )
        except MapError as error:
            if closure is None:
                raise
            addition = Addition(None, str(error))  # a full disk takes no loop from the robot
        return Step(match, addition, closure)

    def _pass(self, now: tuple[float, float, float], taken_s: float, live: bool) -> None:
        """Go on along the way, and forget what is neither of the last metres nor seconds."""
        ours_s = time.monotonic()
        if self._last is not None:
            was_live, before_s, then_s = self._last
            # The time of a recording is what it says: a step back in it is none. Ours is never set.
            self._age_s += ours_s - before_s if live or was_live else max(taken_s - then_s, 0.0)
        self._last = live, ours_s, taken_s
        offset_s = taken_s - self._age_s
        if not self._clocks or abs(offset_s - self._clocks[-1].offset_s) > _SET_S:
            self._clocks.append(_Clock(offset_s, self._age_s, self._age_s))
        self._clocks[-1].until_s = self._age_s
        while self._age_s - self._clocks[0].until_s > (self._exclude_s or 0.0):
            self._clocks.popleft()
        moved_m = 0.0 if self._before is None else math.dist(self._before, now[:2])
        if self._before is None or moved_m >= self._stands_m:
            self._travelled_m += moved_m
            self._before = now[:2]
            self._way.append(_Stop(self._travelled_m, taken_s, taken_s))
        self._way[-1].until_s = taken_s
        # The last one before the window stays: what was seen from there on is left out.
        while len(self._way) > 1 and self._travelled_m - self._way[1].travelled_m > self._window_m:
            self._way.popleft()

    def _excluded(self, taken_s: float) -> int | str:
        """What a query leaves out: a slow robot is still beside what it saw half a minute ago, and
        where the clock was set, that was hours ago, or will be."""
        if self._exclude_s is None:
            return self._exclude_last
        seen_s = [at for stop in self._way for at in (stop.from_s, stop.until_s)]
        since_s = self._age_s - self._exclude_s
        for clock in list(self._clocks)[:-1]:
            seen_s += [clock.offset_s + max(clock.from_s, since_s), clock.offset_s + clock.until_s]
        # A query keeps what was seen just as long ago.
        apart_s = max(abs(taken_s - at) for at in seen_s) + 1e-3
        return f"{max(self._exclude_s, apart_s):f}s"

    def _judge(
        self, match: Match, now: tuple[float, float, float], height_m: float
    ) -> Closure | None:
        assert match.pose is not None
        if not all(math.isfinite(n) for n in (*match.pose[:2], *match.pose[3:])):
            return None  # of a place without a heading, as maps of positions alone have
        if self._height_m is not None and abs(match.pose[2] - height_m) > self._height_m:
            return None  # where one height is not known, it is no reason
        answer = _Answer(now, planar(match.pose, _POSE), self._travelled_m)
        while self._answers and answer.travelled_m - self._answers[0].travelled_m > self._window_m:
            self._answers.popleft()
        if self._answers and self._answers[-1].travelled_m == answer.travelled_m:
            self._answers.pop()  # where it stands still
        alike = [other for other in self._answers if self._agrees(other, answer)]
        self._answers.append(answer)
        if len(alike) + 1 < self._agree:
            return None
        if answer.travelled_m - alike[0].travelled_m < self._baseline_m:
            return None
        limit_m, share = self._tolerance
        furthest_m = max(math.dist(other.now[:2], now[:2]) for other in alike)
        if furthest_m <= limit_m + share * furthest_m:
            return None  # to and fro on the spot: an answer that stands still would agree as well
        return Closure(match.tag, match.place, answer.then, now, len(alike) + 1)

    def _agrees(self, one: _Answer, other: _Answer) -> bool:
        """Whether the robot moved between two answers as the places they name lie to each other."""
        moved, along = seen_from(one.now, other.now), seen_from(one.then, other.then)
        limit_m, share = self._tolerance
        return math.dist(moved, along) <= limit_m + share * math.hypot(*moved)
