"""ROS 2 without ROS: the node's topics and services over cyclonedds.

Needs ``tatvpr-edge[dds]``. Its wheels are for x86-64; on aarch64 pip builds it from source, against
an installed Cyclone DDS (docs/ros2.md).
"""
