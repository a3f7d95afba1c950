"""A :class:`~tatvpr_edge.ros.node.PlaceNode` with its topics and services on DDS."""

from __future__ import annotations

from functools import partial

from cyclonedds.domain import DomainParticipant

from tatvpr_edge.ros import handlers
from tatvpr_edge.ros.dds.services import ServiceServer
from tatvpr_edge.ros.dds.transport import DdsTransport
from tatvpr_edge.ros.node import PlaceNode, State
from tatvpr_edge.ros.parameters import Parameters
from tatvpr_edge.runtime.closing import Closing


class CarriedNode(Closing):
    """The node on the network from here to :meth:`close`; ``node.start()`` makes it active.

    Args:
        participant: of the domain that the node is in.
        parameters: what is set; ``services`` False leaves those out that change the map or k.
        name: the node's.

    Raises:
        UsageError: ROS allows no such name.
    """

    def __init__(
        self, participant: DomainParticipant, parameters: Parameters, name: str = "place_node"
    ) -> None:
        self.node = PlaceNode(parameters, DdsTransport(participant, parameters, name), name)
        offered = {**handlers.LIFECYCLE, **(handlers.CHANGES if parameters.services else {})}
        self._server = ServiceServer(
            participant,
            name,
            {
                service: partial(handlers.answered, handler, self.node)
                for service, handler in offered.items()
            },
        )

    @property
    def finished(self) -> bool:
        """Whether somebody shut the node down."""
        return self.node.state is State.FINALIZED

    def close(self) -> None:
        """Shut the node down and leave the network."""
        self._server.close()
        self.node.shutdown()
