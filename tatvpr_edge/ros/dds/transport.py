"""A :class:`~tatvpr_edge.ros.transport.Transport` over cyclonedds.

Images are taken from DDS when the node asks for one: its reader keeps the newest alone, so that
those which nobody has time for are never copied into Python.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from tatvpr_edge.ros import names
from tatvpr_edge.ros.dds import types
from tatvpr_edge.ros.parameters import Parameters
from tatvpr_edge.spec.errors import UsageError

#: What a sensor offers and asks for in ROS 2: the newest, and no time lost on repeating old ones.
SENSOR = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(1))
#: Odometry: more than comes between two images.
_ODOMETRY_KEPT = 1000
ODOMETRY = Qos(
    Policy.Reliability.BestEffort,
    Policy.Durability.Volatile,
    Policy.History.KeepLast(_ODOMETRY_KEPT),
)
#: For the last answer: who comes later gets it too.
LATCHED = Qos(
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.TransientLocal,
    Policy.History.KeepLast(1),
)
#: ROS 2's default for topics and services.
RELIABLE = Qos(
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.Volatile,
    Policy.History.KeepLast(10),
)


def domain_id() -> int:
    """``ROS_DOMAIN_ID``, as all ROS programs take it; 0 without.

    Raises:
        UsageError: it is no number of a domain.
    """
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not text.isdecimal() or int(text) > 232:
        raise UsageError(f"ROS_DOMAIN_ID is {text!r}: a number from 0 to 232")
    return int(text)


class DdsTransport:
    """The node's topics.

    Args:
        participant: of the domain that the node is in.
        parameters: which topic images come from, and how.
        node: the node's name, below which it publishes ``match`` and ``pose``.
    """

    types: Any = types

    def __init__(self, participant: DomainParticipant, parameters: Parameters, node: str) -> None:
        topics = parameters.topics(node)
        compressed = parameters.image_transport == "compressed"
        kind: type = types.CompressedImage if compressed else types.Image
        images = _topic(participant, topics["images"], kind, SENSOR)
        self._reader: Any = DataReader(participant, images, qos=SENSOR)
        self._images = WaitSet(participant)
        self._unread = unread(self._reader)
        self._images.attach(self._unread)
        self._odometry: Any = None
        if "odometry" in topics:
            made = _topic(participant, topics["odometry"], types.Odometry, ODOMETRY)
            self._odometry = DataReader(participant, made, qos=ODOMETRY)
        outputs = {
            "match": (types.PlaceMatch, LATCHED),
            "pose": (types.PoseWithCovarianceStamped, RELIABLE),
            "diagnostics": (types.DiagnosticArray, RELIABLE),
        }
        self._writers = {
            output: DataWriter(
                participant, _topic(participant, topics[output], type_, qos), qos=qos
            )
            for output, (type_, qos) in outputs.items()
        }
        self._writing = threading.Lock()

    def next_image(self, timeout_s: float) -> Any | None:
        """The newest image; None where none comes in time."""
        if self._images.wait(duration(seconds=timeout_s)) == 0:
            return None
        taken = whole(self._reader.take(1, condition=self._unread))
        return taken[0] if taken else None

    def odometry(self) -> list[Any]:
        """Messages of odometry that came since the last call."""
        return [] if self._odometry is None else whole(self._odometry.take(_ODOMETRY_KEPT))

    def publish(self, output: str, message: Any) -> None:
        """Send ``message`` to "match", "pose" or "diagnostics"."""
        with self._writing:
            self._writers[output].write(message)

    def cameras(self) -> int:
        """Publishers of the image topic that are known now."""
        return len(self._reader.get_matched_publications())

    def now_ns(self) -> int:
        """This machine's clock."""
        return time.time_ns()


def unread(reader: Any) -> ReadCondition:
    """True while ``reader`` holds a sample that was not taken."""
    return ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Any)


def whole(samples: list[Any]) -> list[Any]:
    """Without the marks that a publisher leaves when it goes away."""
    return [sample for sample in samples if sample.sample_info.valid_data]


def _topic(participant: DomainParticipant, name: str, kind: Any, qos: Qos) -> Any:
    return Topic(participant, names.dds_topic(name), kind, qos=qos)
