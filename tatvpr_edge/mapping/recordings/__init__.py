"""Recordings as frames: bags of ROS 1 and ROS 2 (``rosbags``) and videos (``av``).

In: a file or bag folder, and how to pick frames of it. Out: frames as a folder gives them, with
times and, where a topic tells, poses. Pixels are read when they are wanted, so that memory stays
small however long the drive was. ``opening`` is the door. Nothing is imported here, for the reason
that ``tatvpr_edge.mapping`` gives.
"""
