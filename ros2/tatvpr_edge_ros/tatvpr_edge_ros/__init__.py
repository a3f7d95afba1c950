"""rclpy around ``tatvpr_edge.ros``; built by colcon."""
