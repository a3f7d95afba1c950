"""``ros2 launch tatvpr_edge_ros place_node.launch.py map:=/home/robot/floor.placemap``."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

#: Parameters that are arguments of the launch as well; all others stand in the YAML file.
ARGUMENTS = {
    "map": "",
    "artifact": "",
    "image_topic": "/camera/image_raw",
}


def generate_launch_description() -> LaunchDescription:
    """The node alone, with the parameters of the YAML file and those given on the command line."""
    config = PathJoinSubstitution(
        [FindPackageShare("tatvpr_edge_ros"), "config", "place_node.yaml"]
    )
    given = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in ARGUMENTS}
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=config),
            *(DeclareLaunchArgument(name, default_value=text) for name, text in ARGUMENTS.items()),
            LifecycleNode(
                package="tatvpr_edge_ros",
                executable="place_node",
                name="place_node",
                namespace="",
                parameters=[LaunchConfiguration("params_file"), given],
                output="screen",
            ),
        ]
    )
