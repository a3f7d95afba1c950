"""What a user sets of the node: one table for the command line, ROS and the documentation.

ROS parameters have a type and no "none": an empty text or 0 leaves a setting to the artifact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tatvpr_edge.ros import names
from tatvpr_edge.runtime.arguments import check_excluded
from tatvpr_edge.runtime.serve import k_from_text
from tatvpr_edge.runtime.tracking import check_sequence
from tatvpr_edge.spec.errors import UsageError

TRANSPORTS = ("raw", "compressed")
_POSITIVE = ("position_sigma_m", "heading_sigma_rad", "max_map_mb", "stale_s", "diagnostics_hz")


def _set(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Parameters:
    """Settings of a :class:`~tatvpr_edge.ros.node.PlaceNode`, checked when they are made.

    Raises:
        UsageError: a value is out of range; the text names it.
    """

    artifact: str = _set("", "folder of an artifact; empty: the deployed release, else this host's")
    map: str = _set("", "the .placemap; empty: the deployed release's")
    k: str = _set("", "fraction of activations kept, as 0.2, or auto; empty: the artifact's")
    tokens: float = _set(0.0, "fraction of patch tokens kept; 0: the artifact's")
    budget: str = _set("", "with k auto: 5W, 0.2J, 40ms, 70C or battery:2h")
    preset: str = _set("", "with k auto: turbo or battery-saver")
    backend: str = _set("", "cpu or tensorrt; empty: the best that runs here")
    image_topic: str = _set("/camera/image_raw", "sensor_msgs/Image that frames come from")
    image_transport: str = _set(
        "raw", "raw, or compressed: CompressedImage on image_topic + /compressed (needs Pillow)"
    )
    frame_id: str = _set("map", "frame of the poses that are published")
    exclude_last: str = _set(
        "0", "so many of the map's last places are left out, or 30s: those seen within that time"
    )
    every_s: float = _set(
        0.0, "seconds from an image that is answered to the next, at least; 0: every one"
    )
    sequence: int = _set(1, "frames that an answer rests on; 1: each image by itself")
    odometry_topic: str = _set(
        "", "nav_msgs/Odometry that says how far a sequence's camera went; empty: none is read"
    )
    position_sigma_m: float = _set(0.5, "least standard deviation of a published position, metres")
    heading_sigma_rad: float = _set(0.35, "standard deviation of a published orientation, radians")
    max_map_mb: float = _set(16.0, "add_place thins the map out where it would become larger, MB")
    services: bool = _set(True, "answer add_place, save_map and set_k; false: nobody changes it")
    stale_s: float = _set(
        2.0, "seconds without an image until diagnostics warn, a sequence ends and nothing is added"
    )
    diagnostics_hz: float = _set(1.0, "how often diagnostics are published: 0.001 to 1000 a second")
    autostart: bool = _set(True, "become active by itself; false: wait for lifecycle transitions")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kind = type(each.default)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if number and kind in (float, str):  # a YAML file says k: 0.2, and tokens: 1
                meant = float(value) if kind is float else f"{value:.15g}"
                object.__setattr__(self, each.name, meant)
            elif not isinstance(value, kind) or (kind is int and not number):
                raise UsageError(f"parameter {each.name} is {value!r}, and no {kind.__name__}")
        self._check_numbers()
        if self.image_transport not in TRANSPORTS:
            raise UsageError(
                f"image_transport is {self.image_transport!r}: {' or '.join(TRANSPORTS)}"
            )
        checks: dict[str, Callable[[], object]] = {
            "image_topic": lambda: names.resolved(self.image_topic, "node"),
            "k": lambda: k_from_text(self.k or None),
            "exclude_last": lambda: check_excluded(self.excluded),
            "sequence": lambda: check_sequence(self.sequence),
            "odometry_topic": self._check_odometry,
        }
        for name, check in checks.items():
            try:
                check()
            except UsageError as error:
                raise UsageError(f"parameter {name}: {error}") from None
        self.topics("node")
        if not self.frame_id:
            raise UsageError("frame_id is empty: name the frame of the map's poses, as in map")

    def _check_numbers(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"parameter {name} is {value!r}: a number above 0")
        if not 0 <= self.every_s < self.stale_s:
            raise UsageError(
                f"parameter every_s is {self.every_s!r}: from 0 to below stale_s, which is "
                f"{self.stale_s:g}"
            )
        if not 0.001 <= self.diagnostics_hz <= 1000:
            raise UsageError(f"parameter diagnostics_hz is {self.diagnostics_hz!r}: 0.001 to 1000")

    def _check_odometry(self) -> None:
        if self.odometry_topic:
            names.resolved(self.odometry_topic, "node")
            if self.sequence == 1:
                raise UsageError("images by themselves need none: set sequence, too, as 5")

    @property
    def excluded(self) -> int | str:
        """``exclude_last`` as :meth:`Localizer.query` takes it."""
        number = self.exclude_last.isdecimal() and len(self.exclude_last) < 18
        return int(self.exclude_last) if number else self.exclude_last

    def topics(self, node: str) -> dict[str, str]:
        """Absolute names of what the node called ``node`` reads and writes: "images", "match",
        "pose", "diagnostics", and "odometry" where it is read.

        Raises:
            UsageError: two of them are one, or ROS allows no such name of a node.
        """
        names.check_node(node)
        images = names.resolved(self.image_topic, node)
        compressed = "/compressed" if self.image_transport == "compressed" else ""
        topics = {
            "match": f"/{node}/match",
            "pose": f"/{node}/pose",
            "diagnostics": "/diagnostics",
            "images": f"{images}{compressed}",
        }
        if self.odometry_topic:
            topics["odometry"] = names.resolved(self.odometry_topic, node)
        names.check_distinct(topics)
        return topics

    @classmethod
    def table(cls) -> Iterator[tuple[str, Any, str]]:
        """(name, default, help) of every parameter; the type is the default's."""
        for each in fields(cls):
            yield each.name, each.default, each.metadata["help"]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Parameters:
        """From names and values.

        Raises:
            UsageError: an unknown name, or a value that is out of range.
        """
        known = {name for name, _, _ in cls.table()}
        for name in values:
            if name not in known:
                raise UsageError(f"parameter {name!r} is unknown: {', '.join(sorted(known))}")
        return cls(**values)

    def localizer_arguments(self) -> dict[str, Any]:
        """What :class:`~tatvpr_edge.runtime.Localizer` is opened with."""
        return {
            "artifact": self.artifact or None,
            "map": self.map or None,
            "k": k_from_text(self.k or None),
            "tokens": self.tokens or None,
            "budget": self.budget or None,
            "preset": self.preset or None,
            "backend": self.backend or None,
        }
