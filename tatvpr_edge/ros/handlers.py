"""Services as ROS carries them: a request and a reply with fields, over the node's own methods.

rclpy hands a reply to be filled, and so does ``tatvpr_edge.ros.dds``; one text serves both. Nothing
is raised to a caller on the network: a reply says what was wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tatvpr_edge.ros.node import TRANSITIONS, PlaceNode
from tatvpr_edge.ros.outgoing import pose_numbers
from tatvpr_edge.spec.errors import TatvprError, UsageError

_LOG = logging.getLogger("tatvpr_edge")
Handler = Callable[[PlaceNode, Any, Any], Any]


def _add_place(node: PlaceNode, request: Any, reply: Any) -> None:
    added = node.add_place(
        pose_numbers(request.pose) if request.has_pose else None,
        request.tag,
        request.novelty if request.only_if_new else None,
    )
    reply.success = added.place is not None
    reply.place = -1 if added.place is None else added.place
    reply.message = added.reason or f"place {added.place}"


def _save_map(node: PlaceNode, request: Any, reply: Any) -> None:
    reply.path = str(node.save_map(request.name))
    reply.success, reply.message = True, "written"


def _set_k(node: PlaceNode, request: Any, reply: Any) -> None:
    reply.message = node.set_k(request.k, request.budget)
    reply.success = True


def _change_state(node: PlaceNode, request: Any, reply: Any) -> None:
    label = request.transition.label or _label(request.transition.id)
    node.change(label)
    reply.success = True


def _label(number: int) -> str:
    """The transition of a number in ``lifecycle_msgs/Transition``; three numbers mean shutdown,
    one for each state that it starts from."""
    if number in (5, 6, 7):
        return "shutdown"
    for label, (known, _, _) in TRANSITIONS.items():
        if known == number:
            return label
    raise UsageError(f"there is no transition {number}")


def _get_state(node: PlaceNode, request: Any, reply: Any) -> None:
    reply.current_state.id = int(node.state)
    reply.current_state.label = node.state.name.lower()


#: What changes the node's map or k; a parameter turns these off.
CHANGES: dict[str, Handler] = {
    "add_place": _add_place,
    "save_map": _save_map,
    "set_k": _set_k,
}
#: What rclpy's LifecycleNode brings itself.
LIFECYCLE: dict[str, Handler] = {"change_state": _change_state, "get_state": _get_state}


def answered(handler: Handler, node: PlaceNode, request: Any, reply: Any) -> Any:
    """``reply``, filled; where ``handler`` refuses, its ``message`` says why."""
    try:
        handler(node, request, reply)
    except TatvprError as error:
        _refuse(reply, str(error))
    except Exception as error:
        _LOG.exception("%s: a service failed", node.name)
        _refuse(reply, f"{type(error).__name__}: {error}")
    return reply


def _refuse(reply: Any, text: str) -> None:
    reply.success = False
    if hasattr(reply, "message"):
        reply.message = text
    _LOG.warning("a service was refused: %s", text)
