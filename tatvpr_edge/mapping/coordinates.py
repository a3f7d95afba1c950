"""What two numbers of a position mean, and how far apart two positions are.

Pose frames: ``local`` (metres in a frame of the user's), ``utm`` (metres, easting and northing of
one zone), ``geographic`` (degrees; x is the longitude, y the latitude, so that x points east and y
north in all three).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.maptypes import FURTHEST_M

Floats = NDArray[np.float64]

#: Easting and northing that UTM can have, metres: a zone is 6 degrees wide, 500,000 its middle.
EASTING_M, NORTHING_M = (100_000.0, 1_000_000.0), (0.0, 10_000_000.0)
#: Places are the same within so many metres, by pose frame, where nobody says another distance.
WITHIN_M = {"local": 5.0, "utm": 25.0, "geographic": 25.0}
#: Mean radius of the Earth (IUGG), metres.
EARTH_M = 6_371_008.8
#: Numbers this near to 0, 0 are more likely a robot's own metres than a spot in the Atlantic.
_NEAR_ORIGIN_DEG = 2.0
#: Degrees with fewer decimals say less than 100 m, and are more likely something else.
_LEAST_DECIMALS = 3


def is_utm(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """Which pairs can be an easting and a northing."""
    east = (first >= EASTING_M[0]) & (first < EASTING_M[1])
    return np.asarray(east & (second >= NORTHING_M[0]) & (second <= NORTHING_M[1]))


def is_geographic(latitude: Floats, longitude: Floats) -> NDArray[np.bool_]:
    """Which pairs can be a latitude and a longitude in degrees."""
    return np.asarray((np.abs(latitude) <= 90) & (np.abs(longitude) <= 180))


def guess_frame(names: Sequence[str], texts: Sequence[tuple[str, str]], values: Floats) -> str:
    """``utm`` or ``geographic``, whichever all positions written in file names can be.

    Args:
        names: of the frames, for messages.
        texts: the two numbers of each as they are written.
        values: float64 [N, 2], the same as numbers.

    Raises:
        DataError: neither fits all of them, or degrees cannot be told from metres.
    """
    remedy = (
        "say what they are with --pose-frame utm, geographic (@latitude@longitude@) or local, or "
        "put a poses.csv with name, x, y beside them"
    )
    utm = is_utm(values[:, 0], values[:, 1])
    if utm.all():
        return "utm"
    odd = names[int(np.argmin(utm))]
    degrees = is_geographic(values[:, 0], values[:, 1])
    if utm.any():
        raise DataError(
            f"{odd}: its position is no UTM easting and northing, and those of other frames are: "
            f"rename it, or {remedy}"
        )
    if not degrees.all():
        raise DataError(
            f"{names[int(np.argmin(degrees))]}: its position is neither a UTM easting (100000 to "
            f"1000000 m) and northing (0 to 10000000 m) nor a latitude and longitude: {remedy}"
        )
    decimals = max(len(text.strip().partition(".")[2]) for pair in texts for text in pair)
    if decimals < _LEAST_DECIMALS or (np.abs(values) < _NEAR_ORIGIN_DEG).all(axis=1).any():
        raise DataError(
            f"{odd}: positions such as {', '.join(texts[0])} may be degrees or metres: {remedy}"
        )
    return "geographic"


def check_positions(values: Floats, frame: str, names: Sequence[str]) -> None:
    """Refuse positions float64 [N, 2] (x east, y north) or [N, 3] (an altitude, too, or NaN) that
    ``frame`` cannot have.

    Raises:
        DataError: it names the first.
    """
    x, y = values[:, 0], values[:, 1]
    if frame == "utm":
        good, rule = is_utm(x, y), "easting 100000 to 1000000 m, northing 0 to 10000000 m"
    elif frame == "geographic":
        good, rule = is_geographic(y, x), "latitude -90 to 90, longitude -180 to 180 degrees"
    else:
        good = ~(np.maximum(np.abs(x), np.abs(y)) > FURTHEST_M)
        rule = f"at most {FURTHEST_M:g} m from its origin"
    if not good.all():
        index = int(np.argmin(good))
        raise DataError(
            f"{names[index]}: its position ({x[index]:g}, {y[index]:g}) is outside {frame}'s "
            f"range ({rule})"
        )
    far = (np.abs(values[:, 2:]) > FURTHEST_M).any(axis=1)
    if far.any():
        index = int(np.argmax(far))
        raise DataError(
            f"{names[index]}: its altitude is {values[index, 2]:g}: at most {FURTHEST_M:g} m"
        )


def metres_apart(queries: Floats, places: Floats, frame: str) -> Floats:
    """Distances float64 [Q, N] in metres between positions [Q, 2] and [N, 2] (x east, y north), or
    [Q, 3] and [N, 3], whose altitudes count as in :func:`metres_in_space`.

    Geographic: the great circle on a sphere, which is within 0.6 % of the ellipsoid's.
    """
    between = metres_in_space if queries.shape[-1] > 2 else metres_between
    return between(queries[:, None], places[None], frame)


def metres_between(one: Floats, other: Floats, frame: str) -> Floats:
    """Distances float64 [...] in metres between positions [..., 2] (x east, y north), pair by pair;
    NaN where one is unknown. Geographic: as :func:`metres_apart`."""
    if frame != "geographic":
        return np.hypot(one[..., 0] - other[..., 0], one[..., 1] - other[..., 1])
    lon, lat = np.radians(one[..., 0]), np.radians(one[..., 1])
    lon_p, lat_p = np.radians(other[..., 0]), np.radians(other[..., 1])
    # The haversine formula (Sinnott, 1984): exact for small distances too.
    h = np.sin((lat - lat_p) / 2) ** 2
    h = h + np.cos(lat) * np.cos(lat_p) * np.sin((lon - lon_p) / 2) ** 2
    return np.asarray(2 * EARTH_M * np.arcsin(np.sqrt(np.clip(h, 0, 1))))


def metres_in_space(one: Floats, other: Floats, frame: str) -> Floats:
    """The same between positions [..., 3]: the third number is the altitude in metres, and counts
    where both are known. Floors of a building lie above each other."""
    up = one[..., 2] - other[..., 2]
    return np.hypot(metres_between(one, other, frame), np.where(np.isnan(up), 0.0, up))


def to_metres(positions: Floats, frame: str) -> Floats:
    """Positions [N, 2] as metres east and north; degrees are laid flat around their middle."""
    if frame != "geographic":
        return positions
    if len(positions) and np.ptp(positions[:, 0]) > 180:  # on both sides of the 180th meridian
        positions = np.column_stack([positions[:, 0] % 360, positions[:, 1]])
    middle = positions.mean(axis=0)
    scale = np.radians(1) * EARTH_M
    flat = (positions - middle) * scale
    flat[:, 0] *= np.cos(np.radians(middle[1]))
    return flat
