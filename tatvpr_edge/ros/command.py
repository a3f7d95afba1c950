"""``python -m tatvpr_edge.ros [--map M] [--image-topic T] ...``: the node, without ROS.

Every parameter of docs/ros2.md is an option, with - for _. ``ROS_DOMAIN_ID`` and
``CYCLONEDDS_URI`` hold as for any ROS program. ``python -m tatvpr_edge.ros call SERVICE
FIELD=VALUE ...`` asks a running node.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
import threading
from typing import Any

from tatvpr_edge.ros.parameters import Parameters
from tatvpr_edge.runtime.commandline import Parser, refused
from tatvpr_edge.spec.errors import TatvprError, ToolError, UsageError
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import above

_PROG = "python -m tatvpr_edge.ros"
#: Fields of requests and replies that say who asks, which the transport fills in.
_CARRIED = ("client_guid", "sequence_number")
#: Fields that a node heeds where another one is true alone.
_FLAGS = {"pose": "has_pose", "novelty": "only_if_new"}
#: How values are written, by the type of their field.
_WRITTEN = {
    "bool": "true or false",
    "float": "a number",
    "Pose": "seven numbers, X,Y,Z,QX,QY,QZ,QW, where 0,0,0,1 is no turn",
}
#: What ROS puts into a message without fields.
_EMPTY = "structure_needs_at_least_one_member"


def run(argv: list[str]) -> int:
    """Exit status 0, 1 (refused) or 2 (usage)."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        if argv and argv[0] == "call":
            return _call(argv[1:])
        return _run(_parsed(argv))
    except (TatvprError, OSError) as error:
        return refused(error)


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        _PROG,
        usage=f"{_PROG} [OPTION VALUE ...]\n       {_PROG} call SERVICE [FIELD=VALUE ...]",
        description="Place recognition as a ROS 2 node, over DDS without ROS. 'call' asks a "
        "running node.",
    )
    parser.add_argument(
        "--node", default="place_node", help="the node's name (default: %(default)s)"
    )
    for name, default, text in Parameters.table():
        option = f"--{name.replace('_', '-')}"
        about = f"{text} (default: {default})" if default != "" else text
        if isinstance(default, bool):
            action = argparse.BooleanOptionalAction
            parser.add_argument(option, action=action, default=default, help=about)
        else:
            parser.add_argument(option, type=type(default), default=default, help=about)
    return parser.parse_args(argv)


def _participant() -> Any:
    """A participant of the domain that ``ROS_DOMAIN_ID`` names.

    Raises:
        ToolError: cyclonedds is missing, or cannot open the network.
    """
    try:
        from cyclonedds.core import DDSException
        from cyclonedds.domain import DomainParticipant
    except ImportError:
        raise ToolError(
            "the node speaks DDS by cyclonedds, which is missing: pip install 'tatvpr-edge[dds]' "
            "(on aarch64 it is built from source: docs/ros2.md)"
        ) from None
    from tatvpr_edge.ros.dds.transport import domain_id

    number = domain_id()
    try:
        return DomainParticipant(number)
    except DDSException as error:
        raise ToolError(
            f"DDS cannot be opened on domain {number} ({error}): does CYCLONEDDS_URI name an "
            "interface that is up?"
        ) from None


def _run(arguments: argparse.Namespace) -> int:
    given = vars(arguments)
    name = given.pop("node")
    parameters = Parameters.of(given)
    participant = _participant()

    from tatvpr_edge.ros.dds.carried import CarriedNode

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with CarriedNode(participant, parameters, name) as carried:
        if parameters.autostart:
            carried.node.start()
        print(
            f"{name} is {carried.node.state.name.lower()} on {parameters.image_topic}", flush=True
        )
        while not ended.wait(0.2) and not carried.finished:
            pass
    return 0


# ---- call ----


def _call(argv: list[str]) -> int:
    parser = Parser(f"{_PROG} call", description="Ask a running node one of its services.")
    parser.add_argument(
        "service", help="add_place, save_map, set_k, change_state or get_state", metavar="SERVICE"
    )
    parser.add_argument(
        "fields", nargs="*", metavar="FIELD=VALUE", default=[], help="as k=0.2 or tag=door"
    )
    parser.add_argument(
        "--node", default="place_node", help="the node's name (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds (default: 10)")
    arguments = parser.parse_args(argv)
    above(arguments.timeout, 0, "--timeout", "seconds, above 0")
    participant = _participant()

    from tatvpr_edge.ros.dds.services import ServiceClient
    from tatvpr_edge.ros.dds.types import SERVICES

    if arguments.service not in SERVICES:
        raise UsageError(f"service {arguments.service!r}: one of {', '.join(SERVICES)}")
    client = ServiceClient(
        participant,
        arguments.node,
        arguments.service,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    fields = _fields(client.request_type, arguments.fields)
    reply = client.call(arguments.timeout, **fields)
    for each in dataclasses.fields(reply):
        if each.name not in _CARRIED:
            print(f"{each.name}: {printable(getattr(reply, each.name))}")
    return 0 if getattr(reply, "success", True) else 1


def _fields(request: type, words: list[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` words as fields of a request: ``pose=x,y,z,qx,qy,qz,qw`` and
    ``transition=activate`` are written so.

    Raises:
        UsageError: no such field, or no such value.
    """
    from tatvpr_edge.ros.dds import types

    blank, fields = request(), {}
    for word in words:
        name, equals, text = word.partition("=")
        known = getattr(blank, name, None)
        if not equals or known is None or name in (*_CARRIED, _EMPTY):
            takes = [
                f.name for f in dataclasses.fields(request) if f.name not in (*_CARRIED, _EMPTY)
            ]
            raise UsageError(
                f"{word!r} is no field of it: write {', '.join(f'{each}=...' for each in takes)}"
                if takes
                else f"{word!r}: it takes no fields"
            )
        try:
            fields[name] = _value(types, known, text)
        except (ValueError, TypeError):
            raise UsageError(f"{name} is {text!r}: {_WRITTEN[type(known).__name__]}") from None
    for name, flag in _FLAGS.items():
        if name in fields and flag not in fields:
            raise UsageError(f"{name} counts for nothing without {flag}=true")
    return fields


def _value(types: Any, known: Any, text: str) -> Any:
    if isinstance(known, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(known, types.Transition):
        return types.Transition(label=text)
    if isinstance(known, types.Pose):
        numbers = [float(word) for word in text.split(",")]
        if len(numbers) != 7:
            raise ValueError(text)
        return types.Pose(types.Point(*numbers[:3]), types.Quaternion(*numbers[3:]))
    return type(known)(text)
