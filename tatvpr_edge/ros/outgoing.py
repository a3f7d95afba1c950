"""Answers as messages: a ``Match`` becomes ``PlaceMatch`` and ``PoseWithCovarianceStamped``.

``types`` holds a transport's message classes; the fields are ROS's, so one text serves them all.
No number that goes out is NaN: what is unknown has a flag, or a large variance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tatvpr_edge.ros.covariance import spacing_m, whole_pose
from tatvpr_edge.ros.parameters import Parameters
from tatvpr_edge.runtime import Match, PlaceMap


def place_match(types: Any, match: Match, header: Any, pose_frame: str, latency_ms: float) -> Any:
    """``tatvpr_edge_msgs/PlaceMatch``, under the image's own header.

    Args:
        latency_ms: from the image's arrival to this message.
    """
    known = match.pose is not None and not np.isnan(match.pose[:2]).any()
    numbers = whole_pose(match.pose, None, 1.0, 1.0)[0] if match.pose and known else None
    return types.PlaceMatch(
        header=header,
        place=int(match.place),
        tag=match.tag,
        score=float(match.score),
        judged=match.accepted is not None,
        accepted=match.accepted is True,
        confidence=float(match.confidence or 0.0),
        margin=float(match.margin or 0.0),
        reason=match.reason or "",
        state=match.state or "",
        frames=int(match.frames),
        has_pose=numbers is not None,
        pose=_pose(types, numbers),
        pose_frame=pose_frame,
        k=float(match.k),
        tokens=float(match.tokens),
        latency_ms=latency_ms,
    )


def pose_of(
    types: Any, match: Match, place_map: PlaceMap, stamp: Any, parameters: Parameters
) -> Any | None:
    """``geometry_msgs/PoseWithCovarianceStamped`` of an accepted match, in the map's frame at the
    image's time. None where there is none: not accepted, of unknown position, or in degrees."""
    if not match.accepted or match.pose is None or np.isnan(match.pose[:2]).any():
        return None
    if place_map.info.pose_frame == "geographic":
        return None
    numbers, covariance = whole_pose(
        match.pose,
        # The map may have been pruned since: its places then have other numbers.
        spacing_m(place_map, match.place) if match.place < len(place_map) else None,
        parameters.position_sigma_m,
        parameters.heading_sigma_rad,
    )
    return types.PoseWithCovarianceStamped(
        header=types.Header(stamp=stamp, frame_id=parameters.frame_id),
        pose=types.PoseWithCovariance(pose=_pose(types, numbers), covariance=covariance.tolist()),
    )


def pose_numbers(pose: Any) -> list[float]:
    """(x, y, z, qx, qy, qz, qw) of a ``geometry_msgs/Pose``."""
    at, turned = pose.position, pose.orientation
    return [at.x, at.y, at.z, turned.x, turned.y, turned.z, turned.w]


def time_of(types: Any, nanoseconds: int) -> Any:
    """``builtin_interfaces/Time``."""
    return types.Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def text_of(number: float | None, unit: str = "") -> str:
    """A number for diagnostics."""
    if number is None or not math.isfinite(number):
        return "unknown"
    return f"{number:.4g}{f' {unit}' if unit else ''}"


def _pose(types: Any, numbers: Any | None) -> Any:
    x, y, z, qx, qy, qz, qw = (0.0,) * 6 + (1.0,) if numbers is None else map(float, numbers)
    return types.Pose(
        position=types.Point(x=x, y=y, z=z), orientation=types.Quaternion(x=qx, y=qy, z=qz, w=qw)
    )
