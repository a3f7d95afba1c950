"""Tiny videos and bags, written by the libraries that robots write them with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime import CameraFrame
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.spec.frames import to_rgb

U8 = NDArray[np.uint8]


def plain_frames(count: int, width: int = 64, height: int = 48) -> list[U8]:
    """Coloured frames, orange on the left and of a gray that counts on the right."""
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), 10 + 20 * index % 240, np.uint8)
        frame[:, : width // 2] = (250, 130, 10)
        frames.append(frame)
    return frames


def rgb(frame: U8 | CameraFrame) -> U8:
    """Pixels uint8 [H, W, 3] of a frame in any format."""
    checked = check_frame(frame)
    return to_rgb(checked.planes, checked.pixel_format, checked.width, checked.height)


def number_of(pixels: U8) -> int:
    """Which of ``plain_frames`` this is."""
    return round((int(pixels[pixels.shape[0] // 2, -4, 1]) - 10) / 20)


def write_video(
    path: Path | Any,
    frames: Sequence[U8],
    rate_hz: int = 10,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    kind: str | None = None,
    b_frames: int = 0,
) -> None:
    """A video of RGB frames; ffv1 in bgr0 keeps every bit."""
    import av

    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.max_b_frames = b_frames
        for index, frame in enumerate(frames):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = index, Fraction(1, rate_hz)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


# ---- bags ------------------------------------------------------------------------------------


class BagWriter:
    """Writes a bag of ROS 1 (``kind`` "bag") or ROS 2 ("mcap", "db3") message by message."""

    def __init__(self, path: Path, kind: str) -> None:
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2
        from rosbags.typesys import Stores, get_typestore

        self.is_ros1 = kind == "bag"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.is_ros1 else Stores.ROS2_HUMBLE)
        self._connections: dict[str, Any] = {}
        self._writer: Any
        if self.is_ros1:
            self._writer = Writer1(path)
        else:
            plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
            self._writer = Writer2(path, version=9, storage_plugin=plugin)

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, topic: str, message: Any, time_s: float, cut: int | None = None) -> None:
        """Record ``message``; ``cut`` keeps that many of its bytes."""
        name = message.__msgtype__
        if topic not in self._connections:
            added = self._writer.add_connection(topic, name, typestore=self.store)
            self._connections[topic] = added
        serialize = self.store.serialize_ros1 if self.is_ros1 else self.store.serialize_cdr
        raw = bytes(serialize(message, name))[:cut]
        self._writer.write(self._connections[topic], round(time_s * 1e9), raw)

    def make(self, name: str, **fields: Any) -> Any:
        """A message of the type ``name``, such as "geometry_msgs/msg/Point"."""
        return self.store.types[name](**fields)

    def header(self, time_s: float) -> Any:
        """A header of that time."""
        nanoseconds = round(time_s * 1e9)
        stamp = self.make(
            "builtin_interfaces/msg/Time",
            sec=nanoseconds // 10**9,
            nanosec=nanoseconds % 10**9,
        )
        more = {"seq": 0} if self.is_ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id="camera", **more)

    def image(
        self,
        data: U8,
        width: int,
        height: int,
        time_s: float,
        encoding: str = "rgb8",
        big: bool = False,
    ) -> Any:
        """An image from its bytes [height, step]."""
        return self.make(
            "sensor_msgs/msg/Image",
            header=self.header(time_s),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=int(big),
            step=data.size // height,
            data=np.ascontiguousarray(data).reshape(-1),
        )

    def rgb(self, frame: U8, time_s: float) -> Any:
        """An image in rgb8."""
        return self.image(frame, frame.shape[1], frame.shape[0], time_s)

    def compressed(self, data: bytes, time_s: float, kind: str = "jpeg") -> Any:
        """A compressed image from the bytes of a file."""
        return self.make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(time_s),
            format=kind,
            data=np.frombuffer(data, np.uint8),
        )

    def pose(self, x: float, y: float, yaw: float) -> Any:
        """A ``geometry_msgs/Pose`` on the ground."""
        z, w = float(np.sin(yaw / 2)), float(np.cos(yaw / 2))
        return self.make(
            "geometry_msgs/msg/Pose",
            position=self.make("geometry_msgs/msg/Point", x=x, y=y, z=0.5),
            orientation=self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=z, w=w),
        )

    def placed(self, kind: str, time_s: float, x: float, y: float, yaw: float) -> Any:
        """A message of poses: "Odometry", "PoseStamped" or "PoseWithCovarianceStamped"."""
        header, pose = self.header(time_s), self.pose(x, y, yaw)
        if kind == "PoseStamped":
            return self.make("geometry_msgs/msg/PoseStamped", header=header, pose=pose)
        spread = np.zeros(36)
        covered = self.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=spread)
        if kind == "PoseWithCovarianceStamped":
            name = "geometry_msgs/msg/PoseWithCovarianceStamped"
            return self.make(name, header=header, pose=covered)
        still = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/msg/Twist", linear=still, angular=still)
        moved = self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=spread)
        return self.make(
            "nav_msgs/msg/Odometry",
            header=header,
            child_frame_id="base_link",
            pose=covered,
            twist=moved,
        )

    def fix(self, time_s: float, latitude: float, longitude: float, status: int = 0) -> Any:
        """A ``sensor_msgs/NavSatFix``."""
        return self.make(
            "sensor_msgs/msg/NavSatFix",
            header=self.header(time_s),
            status=self.make("sensor_msgs/msg/NavSatStatus", status=status, service=1),
            latitude=latitude,
            longitude=longitude,
            altitude=10.0,
            position_covariance=np.zeros(9),
            position_covariance_type=0,
        )
