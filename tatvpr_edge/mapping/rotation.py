"""Orientations in a table of poses, as quaternions x y z w."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.table import Table
from tatvpr_edge.spec.errors import DataError

Floats = NDArray[np.float64]

_QUATERNION = ("qx", "qy", "qz", "qw")
_ANGLES = ("roll", "pitch", "yaw")
#: How far a quaternion's length may be from 1, for the decimals that a table keeps; it is mended.
_LENGTH_TOLERANCE = 0.01
#: Orientations whose zero and sense no rule says.
_UNCLEAR = ("heading", "heading_deg", "theta", "theta_deg", "bearing", "azimuth", "compass")


def quaternions(table: Table) -> Floats:
    """float64 [rows, 4], NaN where a row says nothing.

    From qx, qy, qz, qw; or from yaw with optional pitch and roll (radians, about z, then y, then
    x; counter-clockwise from x, as ROS REP 103 has it), or yaw_deg, pitch_deg, roll_deg.

    Raises:
        DataError: a quaternion that is zero, not of length 1 or half given; angles that are
            degrees in a column of radians; orientations in columns of no clear meaning.
    """
    given = [name for name in _QUATERNION if name in table.columns]
    angles = [name for base in _ANGLES for name in (base, f"{base}_deg") if name in table.columns]
    if given:
        if len(given) < len(_QUATERNION):
            raise DataError(
                f"{table.path} has {', '.join(given)} but not all of {', '.join(_QUATERNION)}: "
                "add the others, or remove these"
            )
        return _from_quaternions(table)
    if angles:
        return _from_angles(table, angles)
    unclear = next((name for name in _UNCLEAR if name in table.columns), None)
    if unclear is not None:
        raise DataError(
            f"{table.path}: the column {unclear} says no zero and no sense: call it yaw (radians) "
            "or yaw_deg, counter-clockwise from x, or remove it"
        )
    return np.full((len(table), 4), np.nan)


def _from_quaternions(table: Table) -> Floats:
    values = np.array([[table.number(i, name) for name in _QUATERNION] for i in range(len(table))])
    known = ~np.isnan(values)
    for index in map(int, np.flatnonzero(known.any(axis=1))):
        if not known[index].all():
            raise DataError(f"{table.where(index)}: its quaternion is half given: qx, qy, qz, qw")
        length = float(np.linalg.norm(values[index]))
        if length < 1e-6:
            raise DataError(
                f"{table.where(index)}: its quaternion is zero: leave the four cells empty where "
                "the orientation is unknown"
            )
        if abs(length - 1) > _LENGTH_TOLERANCE:
            raise DataError(
                f"{table.where(index)}: its quaternion has the length {length:.4g}, which must be "
                "1: check the order qx, qy, qz, qw"
            )
        values[index] /= length
    return values


def _from_angles(table: Table, names: list[str]) -> Floats:
    for base in _ANGLES:
        if base in names and f"{base}_deg" in names:
            raise DataError(f"{table.path} has {base} and {base}_deg: keep one of them")
    if not any(name.startswith("yaw") for name in names):
        raise DataError(f"{table.path} has {', '.join(names)} but no yaw: add it, or remove them")
    radians = dict.fromkeys(_ANGLES, np.zeros(len(table)))
    for name in names:
        values = np.array([table.number(i, name) for i in range(len(table))])
        if name.endswith("_deg"):
            values = np.radians(values)
        elif (np.abs(values) > 2 * np.pi + 1e-6).any():
            index = int(np.argmax(np.abs(values) > 2 * np.pi + 1e-6))
            raise DataError(
                f"{table.where(index)}: {name} is {values[index]:g}, more than a turn in radians: "
                f"call the column {name}_deg if it is in degrees"
            )
        radians[name.removesuffix("_deg")] = values
    return _quaternion_of(radians["roll"], radians["pitch"], radians["yaw"])


def _quaternion_of(roll: Floats, pitch: Floats, yaw: Floats) -> Floats:
    """Yaw about z, then pitch about the new y, then roll about the new x (Diebel, 2006)."""
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a / 2), np.sin(a / 2)) for a in (roll, pitch, yaw))
    return np.stack(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ],
        axis=1,
    )


def slerp(before: Floats, after: Floats, part: float) -> Floats:
    """The quaternion ``part`` (0..1) of the shortest turn from ``before`` to ``after``
    (Shoemake, 1985); float64 [4] each, of unit length, or NaN where one is unknown."""
    cosine = float(before @ after)
    if cosine < 0:  # q and -q are the same orientation; this is the nearer one
        after, cosine = -after, -cosine
    angle = float(np.arccos(min(cosine, 1.0)))
    if angle < 1e-6:
        mixed = (1 - part) * before + part * after
    else:
        mixed = (np.sin((1 - part) * angle) * before + np.sin(part * angle) * after) / np.sin(angle)
    return np.asarray(mixed / np.linalg.norm(mixed))
