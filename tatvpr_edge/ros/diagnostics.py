"""The node's health as ``diagnostic_msgs/DiagnosticArray``, for rqt and robot monitors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tatvpr_edge.ros.outgoing import text_of, time_of
from tatvpr_edge.ros.transport import Transport
from tatvpr_edge.runtime.tracking import calibrated_for

if TYPE_CHECKING:
    from tatvpr_edge.ros.figures import Summary
    from tatvpr_edge.ros.node import PlaceNode
    from tatvpr_edge.runtime import PlaceMap


def diagnostics(node: PlaceNode, transport: Transport) -> Any:
    """One status: its level, a line, and the figures behind it."""
    types = transport.types
    now, cameras = node.figures.summary(), transport.cameras()
    level, line = _judged(node, now, cameras)
    values = [types.KeyValue(key=key, value=value) for key, value in _values(node, now, cameras)]
    localizer = node.localizer
    status = types.DiagnosticStatus(
        level=getattr(types.DiagnosticStatus, level),
        name=f"{node.name}: place recognition",
        message=line,
        hardware_id="" if localizer is None else localizer.artifact.manifest.board,
        values=values,
    )
    header = types.Header(stamp=time_of(types, transport.now_ns()), frame_id="")
    return types.DiagnosticArray(header=header, status=[status])


def _judged(node: PlaceNode, now: Summary, cameras: int) -> tuple[str, str]:
    """(level, line), the worst first."""
    topic = node.parameters.image_topic
    if now.silent_s is None:
        return "OK", node.state.name.lower()
    if now.fault is not None:
        return "ERROR", now.fault
    if now.silent_s > node.parameters.stale_s:
        who = "nobody publishes it" if cameras == 0 else f"{cameras} publish it, and are silent"
        return "STALE", f"no image on {topic} for {now.silent_s:.1f} s: {who}"
    if not now.answered:
        return "OK", f"waiting for the first image on {topic}"
    warnings = list(_warnings(node))
    if warnings:
        return "WARN", "; ".join(warnings)
    return "OK", f"{text_of(now.rate_hz, 'Hz')}, p95 {text_of(now.latency_p95_ms, 'ms')}"


def _warnings(node: PlaceNode) -> Iterator[str]:
    """Why answers are less than they could be."""
    localizer, frames = node.localizer, node.parameters.sequence
    place_map = None if localizer is None else localizer.map
    if place_map is not None and not _judges(place_map, frames):
        of_what = f" for sequences of {frames}" if frames > 1 else ""
        yield f"map {place_map.path} is not calibrated{of_what}: tatvpr-edge map calibrate"
    if node.parameters.odometry_topic and node.travel.fault:
        yield f"no odometry of {node.parameters.odometry_topic}: {node.travel.fault}"


def _judges(place_map: PlaceMap, frames: int) -> bool:
    """Whether some band says which answers of ``frames`` images are right."""
    bands = place_map.info.bands
    if frames > 1:
        return any(calibrated_for(band, frames) for band in bands)
    return any(band.calibration for band in bands)


def _values(node: PlaceNode, now: Summary, cameras: int) -> list[tuple[str, str]]:
    values = [
        ("state", node.state.name.lower()),
        ("publishers", str(cameras)),
        ("answered", str(now.answered)),
        ("accepted", str(now.accepted)),
        ("failed", str(now.failed)),
        ("rate", text_of(now.rate_hz, "Hz")),
        ("latency p50", text_of(now.latency_p50_ms, "ms")),
        ("latency p95", text_of(now.latency_p95_ms, "ms")),
    ]
    localizer = node.localizer
    if localizer is not None:
        place_map, governor = localizer.map, localizer.governor
        values += [
            ("k", str(localizer.k)),
            ("map", "" if place_map is None else str(place_map.path)),
            ("places", "0" if place_map is None else str(len(place_map))),
        ]
        if localizer.k == "auto" and governor is not None:
            values.append(("governor", governor.why()))
    return values
