"""Place recognition as a ROS 2 node: images come in on a topic, places go out.

:class:`PlaceNode` knows no middleware. It is carried by ``tatvpr_edge.ros.dds``, which speaks ROS
2's wire protocol without ROS (``python -m tatvpr_edge.ros``, needs NumPy and cyclonedds), or by
rclpy (the colcon package ``ros2/tatvpr_edge_ros``). Topics, parameters and services: docs/ros2.md.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tatvpr_edge.ros.node import PlaceNode, State
    from tatvpr_edge.ros.parameters import Parameters
    from tatvpr_edge.ros.transport import Transport

__all__ = ["Parameters", "PlaceNode", "State", "Transport"]


def __getattr__(name: str) -> object:
    """One of ``__all__``, imported when it is asked for: what runs the node begins before."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tatvpr_edge.ros import node

    globals()[name] = value = getattr(node, name)
    return value
