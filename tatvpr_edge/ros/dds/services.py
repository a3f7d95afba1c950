"""Services over DDS, as ``rmw_cyclonedds_cpp`` carries them: a request and a reply topic, whose
samples begin with the number of the client and of its request.

:class:`ServiceServer` answers for a node; :class:`ServiceClient` asks (``python -m tatvpr_edge.ros
call``, and tests). Other middleware of ROS 2 carries both numbers elsewhere, and cannot call.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from cyclonedds.core import GuardCondition, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from tatvpr_edge.ros import names
from tatvpr_edge.ros.dds.transport import domain_id, unread, whole
from tatvpr_edge.ros.dds.types import SERVICES
from tatvpr_edge.spec.errors import DeployError

_LOG = logging.getLogger("tatvpr_edge")
#: Every client reads the replies to all, and may be late for a thousand of them.
_SERVICE = Qos(
    Policy.Reliability.Reliable(duration(seconds=1)),
    Policy.Durability.Volatile,
    Policy.History.KeepLast(1000),
)
#: How long a reply waits for its client's reader, which DDS may find after its writer.
_MATCH_S = 1.0
_PAUSE_S = 0.01
#: A call that takes longer says what it waits for.
_SILENT_S = 1.0
Answer = Callable[[Any, Any], Any]


class ServiceServer:
    """Answers requests, one after the other, in a thread of its own.

    Args:
        participant: of the domain that the node is in.
        node: its name; services stand below it.
        answers: by the service's name, what fills a reply: ``answer(request, reply)``.
    """

    def __init__(
        self, participant: DomainParticipant, node: str, answers: dict[str, Answer]
    ) -> None:
        self._ended = GuardCondition(participant)
        self._waiting = WaitSet(participant)
        self._waiting.attach(self._ended)
        self._ends: list[tuple[Any, Any, type, Answer]] = []
        for name, answer in answers.items():
            request, reply = SERVICES[name]
            asked, said = names.dds_service(f"/{node}/{name}")
            reader, writer = _ends(participant, (asked, request), (said, reply))
            self._ends.append((reader, writer, reply, answer))
            self._waiting.attach(unread(reader))
        self._thread = threading.Thread(target=self._run, name="tatvpr-services", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._waiting.wait(duration(seconds=60))
            if self._ended.read():
                return
            for reader, writer, reply, answer in self._ends:
                for request in whole(reader.take(10)):
                    said = answer(request, reply())
                    said.client_guid = request.client_guid
                    said.sequence_number = request.sequence_number
                    _wait_matched(reader, writer)
                    try:
                        writer.write(said)
                    except Exception:  # the next request is answered whatever this one did
                        _LOG.exception("a reply could not be sent")

    def close(self) -> None:
        """Answer no more."""
        self._ended.set(True)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)


class ServiceClient:
    """Asks one service of a node; one call at a time.

    Args:
        participant: of the domain that the node is in.
        node, service: as ``place_node`` and ``set_k``.
        tell: is given a line where a call waits for more than a second: what it waits for.

    Raises:
        UsageError: ROS allows no such name.
    """

    def __init__(
        self,
        participant: DomainParticipant,
        node: str,
        service: str,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tell = tell
        self.request_type, reply = SERVICES[service]
        self._name = names.resolved(f"/{node}/{service}", node)
        asked, said = names.dds_service(self._name)
        request = asked, self.request_type
        self._reader, self._writer = _ends(participant, (said, reply), request)
        self._waiting = WaitSet(participant)
        self._waiting.attach(unread(self._reader))
        self._guid = secrets.randbits(64)
        self._numbers = itertools.count(1)

    def call(self, timeout_s: float = 10.0, **fields: Any) -> Any:
        """The reply to a request of these fields.

        Raises:
            DeployError: no such service is there, or it does not answer in time.
        """
        began = time.monotonic()
        end, told = began + timeout_s, False
        while not (
            self._writer.get_matched_subscriptions() and self._reader.get_matched_publications()
        ):
            now = time.monotonic()
            if not told and now > began + _SILENT_S:
                told = True
                self._tell(
                    f"waiting up to {timeout_s:g} s for a node with the service {self._name} on "
                    f"ROS domain {domain_id()} ..."
                )
            if now > end:
                raise DeployError(
                    f"no service {self._name}: is the node running, with this ROS_DOMAIN_ID?"
                )
            time.sleep(_PAUSE_S)
        number = next(self._numbers)
        self._writer.write(
            self.request_type(client_guid=self._guid, sequence_number=number, **fields)
        )
        asked, told = time.monotonic(), False
        while (now := time.monotonic()) < end:
            if not told and now > asked + _SILENT_S:
                told = True
                self._tell(f"{self._name} was asked: waiting up to {end - now:.0f} s for it ...")
            self._waiting.wait(duration(seconds=0.1))
            for reply in whole(self._reader.take(10)):
                if (reply.client_guid, reply.sequence_number) == (self._guid, number):
                    return reply
        raise DeployError(f"service {self._name} did not answer within {timeout_s:g} s")


def _ends(
    participant: DomainParticipant, read: tuple[str, type], written: tuple[str, type]
) -> tuple[Any, Any]:
    """Reader and writer of two topics, each by its name and type."""
    reader: Any = DataReader(participant, Topic(participant, *read, qos=_SERVICE), qos=_SERVICE)
    writer: Any = DataWriter(participant, Topic(participant, *written, qos=_SERVICE), qos=_SERVICE)
    return reader, writer


def _wait_matched(reader: Any, writer: Any) -> None:
    """Until as many clients can be told as can ask: a reply to one that cannot is lost."""
    end = time.monotonic() + _MATCH_S
    while (
        len(writer.get_matched_subscriptions()) < len(reader.get_matched_publications())
        and time.monotonic() < end
    ):
        time.sleep(_PAUSE_S)
