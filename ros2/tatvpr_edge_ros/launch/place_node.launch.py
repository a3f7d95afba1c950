"""``ros2 launch tatvpr_edge_ros place_node.launch.py map:=/home/robot/floor.placemap``."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.substitutions import FindPackageShare

#: Parameters that may be given to the launch as well; all others stand in the YAML file.
ARGUMENTS = ("map", "artifact", "image_topic")


def _node(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with the YAML file's parameters and those that were given over them."""
    said = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    given = {name: text for name, text in said.items() if text}
    return [
        LifecycleNode(
            package="tatvpr_edge_ros",
            executable="place_node",
            name="place_node",
            namespace="",
            parameters=[LaunchConfiguration("params_file"), given],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The node alone."""
    share = FindPackageShare("tatvpr_edge_ros")
    config = PathJoinSubstitution([share, "config", "place_node.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=config),
            *(DeclareLaunchArgument(name, default_value="") for name in ARGUMENTS),
            OpaqueFunction(function=_node),
        ]
    )
