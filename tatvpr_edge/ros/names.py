"""Names as ROS 2 writes them, and what DDS calls the same things.

ROS 2 puts ``rt`` before a topic's name, and makes of a service two topics, ``rq...Request`` and
``rr...Reply`` (design.ros2.org, "Topic and Service name mapping to DDS").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tatvpr_edge.spec.errors import UsageError

_TOKEN = r"[A-Za-z_][A-Za-z0-9_]*"
_ABSOLUTE = re.compile(rf"(/{_TOKEN})+")


def check_node(name: str) -> str:
    """A node's name without its namespace.

    Raises:
        UsageError: ROS allows no such name.
    """
    if not re.fullmatch(_TOKEN, name):
        raise UsageError(f"node name {name!r}: letters, digits and _, and no digit first")
    return name


def resolved(name: str, node: str) -> str:
    """The absolute name of a topic or service: ``~/match`` of node ``place_node`` is
    ``/place_node/match``, and ``camera/image_raw`` is ``/camera/image_raw``.

    Raises:
        UsageError: ROS allows no such name.
    """
    absolute = name
    if name.startswith("~/"):
        absolute = f"/{node}/{name[2:]}"
    elif not name.startswith("/"):
        absolute = f"/{name}"
    if not _ABSOLUTE.fullmatch(absolute) or "__" in absolute:
        raise UsageError(
            f"{name!r} is no ROS name: words of letters, digits and single _ between slashes"
        )
    return absolute


def check_distinct(topics: Mapping[str, str]) -> None:
    """What a node reads and writes are different topics: each has one type of message.

    Args:
        topics: absolute names, by what each is.

    Raises:
        UsageError: two are one; the text names both.
    """
    known: dict[str, str] = {}
    for what, topic in topics.items():
        if topic in known:
            raise UsageError(f"{what} and {known[topic]} are one topic, {topic}: name another")
        known[topic] = what


def dds_topic(name: str) -> str:
    """DDS topic of the absolute ROS topic ``name``."""
    return f"rt{name}"


def dds_service(name: str) -> tuple[str, str]:
    """DDS topics of requests to and replies of the absolute ROS service ``name``."""
    return f"rq{name}Request", f"rr{name}Reply"
