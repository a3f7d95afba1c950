"""How a robot moved between two frames, as its odometry says: metres, and turns where known.

In: what a program gives ``query(odometry=...)``. Out: :class:`Moved`, which the filter of
``tatvpr_track.h`` takes. Also poses as seen from above, for loops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.maptypes import FURTHEST_M, QUATERNION_SLACK
from tatvpr_edge.spec.values import between, numbers, wrong

#: (x, y, heading): metres, and radians counter-clockwise about z.
Planar = tuple[float, float, float]
#: Metres; (ahead, left, turn) in metres and radians; or two poses of odometry, before and now.
Odometry = float | Sequence[float] | Sequence[Sequence[float]]

_MEANING = (
    "metres that the camera moved since the last frame; or (ahead, left, turn) in metres and "
    "radians; or two poses of odometry, (before, now)"
)
#: Radians: further is no turn between two frames.
_MOST_TURNED = 1e3


class Moved(NamedTuple):
    """How the camera moved since the last frame.

    Attributes:
        metres: forwards, or backwards where it is below 0.
        turned_rad: counter-clockwise; None: not known.
    """

    metres: float
    turned_rad: float | None = None

    def plain(self) -> float | list[float]:
        """For JSON, as :func:`check_odometry` takes it."""
        return self.metres if self.turned_rad is None else [self.metres, 0.0, self.turned_rad]


def check_odometry(odometry: Any) -> Moved | None:
    """What a program says of the motion since the last frame; None: it is not known.

    Raises:
        UsageError: it is no motion.
    """
    if odometry is None:
        return None
    try:
        count = 0 if isinstance(odometry, (str, bytes)) else len(odometry)
    except TypeError:  # one number
        count = 0
    if count == 0:
        return Moved(between(odometry, -FURTHEST_M, FURTHEST_M, "odometry", _MEANING))
    if count == 2:
        return _between_poses(odometry)
    given = numbers(odometry, "odometry", _MEANING)
    if len(given) != 3:
        raise wrong(odometry, "odometry", _MEANING)
    ahead, left = (between(n, -FURTHEST_M, FURTHEST_M, "odometry", _MEANING) for n in given[:2])
    turned = between(given[2], -_MOST_TURNED, _MOST_TURNED, "odometry", _MEANING)
    return Moved(_metres(ahead, left), turned)


def _between_poses(odometry: Any) -> Moved:
    try:
        before, now = odometry
        one, other = planar(before, _MEANING), planar(now, _MEANING)
    except (TypeError, ValueError, UsageError):
        meaning = f"{_MEANING}, each x, y, z, qx, qy, qz, qw with a quaternion of length 1"
        raise wrong(odometry, "odometry", meaning) from None
    return Moved(_metres(*seen_from(one, other)), math.remainder(other[2] - one[2], math.tau))


def _metres(ahead: float, left: float) -> float:
    """How far, and which way: who rocks, or whose odometry is noisy, goes nowhere in sum."""
    metres = between(math.hypot(ahead, left), 0, FURTHEST_M, "odometry", _MEANING)
    return math.copysign(metres, ahead)


def planar(pose: Any, meaning: str) -> Planar:
    """(x, y, heading) of a pose (x, y, z, qx, qy, qz, qw); the heading in radians, about z.

    Args:
        meaning: what a wrong one should be.

    Raises:
        UsageError: it is no whole pose, not finite, or its quaternion is none: zeros are what a
            driver sends that knows no orientation, and not "looks along x".
    """
    given = numbers(pose, "pose", meaning)
    if len(given) != 7 or not all(math.isfinite(n) for n in (*given[:2], *given[3:])):
        raise wrong(pose, "pose", meaning)
    x, y, _, qx, qy, qz, qw = given
    if abs(math.hypot(qx, qy, qz, qw) - 1) > QUATERNION_SLACK:
        raise wrong(pose, "pose", meaning)
    heading = math.atan2(2 * (qw * qz + qx * qy), qw * qw + qx * qx - qy * qy - qz * qz)
    return x, y, heading


def seen_from(origin: Planar, other: Planar) -> tuple[float, float]:
    """Metres ahead and to the left of ``origin``."""
    dx, dy = other[0] - origin[0], other[1] - origin[1]
    c, s = math.cos(origin[2]), math.sin(origin[2])
    return c * dx + s * dy, c * dy - s * dx
