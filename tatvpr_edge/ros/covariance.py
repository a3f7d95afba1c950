"""How sure a published pose is: as sure as the map is dense there.

A match says which place a frame is of, not where between the places the robot stands. So a position
is taken to be as uncertain as the map's places are apart.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime import PlaceMap

#: Variance of an axis about which the map says nothing; filters give it no weight.
UNKNOWN = 1e6
F64 = NDArray[np.float64]


def spacing_m(place_map: PlaceMap, place: int) -> float | None:
    """Distance to the nearer of the two neighbours of ``place`` in the map's order, in the plane.

    The nearer one, because the other may be of another drive. None where neither is known.
    """
    here = place_map.pose(place)[:2]
    near = []
    for neighbour in (place - 1, place + 1):
        if 0 <= neighbour < len(place_map):
            distance = float(np.linalg.norm(place_map.pose(neighbour)[:2] - here))
            if math.isfinite(distance):
                near.append(distance)
    return min(near, default=None)


def whole_pose(
    pose: tuple[float, ...], spacing: float | None, least_m: float, heading_rad: float
) -> tuple[F64, F64]:
    """A pose without unknown numbers, and what is known of each axis.

    Args:
        pose: (x, y, z, qx, qy, qz, qw), NaN where unknown; x and y are known.
        spacing: of the map around it, metres; None: unknown.
        least_m, heading_rad: standard deviations, the first at least.

    Returns:
        The pose float64 [7] with z = 0 and no rotation where those are unknown, and the covariance
        float64 [36] (rows of x, y, z, and rotations about them), large on axes that are unknown.
    """
    numbers = np.array(pose, np.float64)
    # A place of 1e200 m, which a map may hold, has a square that no float is.
    position, heading = (
        min(sigma, math.sqrt(UNKNOWN)) ** 2 for sigma in (max(least_m, spacing or 0.0), heading_rad)
    )
    variances = np.array([position] * 3 + [heading] * 3)
    if np.isnan(numbers[2]):
        numbers[2], variances[2] = 0.0, UNKNOWN
    length = float(np.linalg.norm(numbers[3:]))
    if math.isfinite(length) and length > 0:
        numbers[3:] /= length
    else:
        numbers[3:], variances[3:] = (0.0, 0.0, 0.0, 1.0), UNKNOWN
    return numbers, np.diag(variances).ravel()
