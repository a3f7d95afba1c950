"""How far apart places of a map lie, once more in NumPy; and places on the date line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

METRES_A_DEGREE = 6_371_008.8 * np.pi / 180
#: Longitude and latitude, where a degree of longitude is half as long as one of latitude.
ORIGIN = (179.9999, 60.0)
Floats = NDArray[np.float64]


def degrees(xy: Floats) -> Floats:
    """float64 [..., 2] metres east and north of :data:`ORIGIN` as longitude and latitude."""
    east, north = xy[..., 0] / (METRES_A_DEGREE / 2), xy[..., 1] / METRES_A_DEGREE
    return np.stack([(ORIGIN[0] + east + 180) % 360 - 180, ORIGIN[1] + north], axis=-1)


def metres(a: Floats, b: Floats, geographic: bool) -> Floats:
    """Metres [...] between positions float64 [..., 2 or 3]: NaN where x or y is unknown; an unknown
    z does not count."""
    apart = np.abs(a - b)
    if geographic:
        apart[..., 0] = np.minimum(apart[..., 0], 360 - apart[..., 0])
        apart[..., 0] *= np.cos(np.radians((a + b)[..., 1] / 2))
        apart[..., :2] *= METRES_A_DEGREE
    apart[..., 2:] = np.nan_to_num(apart[..., 2:])
    return np.asarray(np.sqrt((apart**2).sum(axis=-1)))
