"""What is a recording, and its frames: of bags and videos; of folders of pictures as well."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tatvpr_edge.mapping.files import FrameFile, frame_files
from tatvpr_edge.mapping.recordings.picking import Picking
from tatvpr_edge.spec.errors import DataError, ToolError, UsageError
from tatvpr_edge.spec.framefiles import lists_bag, storages
from tatvpr_edge.spec.values import instance
from tatvpr_edge.spec.values import path as check_path

_BAGS = (".bag", ".mcap", ".db3")
_VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".ts", ".mpg", ".mpeg")


def is_recording(path: str | Path) -> bool:
    """Whether ``path`` is a bag (a file, or ROS 2's folder) or a video, by its name."""
    path = Path(os.path.expanduser(path))
    return _is_bag(path) or (path.suffix.lower() in _VIDEOS and not os.path.isdir(path))


def _is_bag(path: Path) -> bool:
    if not os.path.isdir(path):
        return path.suffix.lower() in _BAGS
    return lists_bag(path) or storages(path) != []


def frames_of(path: str | Path, picking: Picking | None = None) -> list[FrameFile]:
    """The frames of a folder, a picture or a recording.

    Args:
        picking: which frames of a recording, and where its poses are; None: the only topic of
            images, every half second, no poses.

    Raises:
        DataError: no such path, no frames in it, or a topic that is not there.
        ToolError: what reads it is not installed.
        UsageError: ``picking`` for what is no recording.
    """
    path = check_path(path, "frames", "a folder, a picture or a recording")
    if picking is not None:
        instance(picking, Picking, "picking", "tatvpr_edge.mapping.Picking(...), or None")
    if not is_recording(path):
        if picking is not None:
            raise UsageError(
                f"{path}: {picking.said()}: for recordings alone (.bag, .mcap, .db3, a ROS 2 bag's "
                "folder, videos), which this is not"
            )
        return frame_files(path)
    if not os.path.lexists(path):  # whatever would read it
        raise DataError(f"{path}: no such file or folder")
    if not (os.path.isfile(path) or os.path.isdir(path)):  # a pipe would be waited for
        raise DataError(
            f"{path} is a pipe, a device or a broken link, not a recording: give a file"
        )
    picking = picking or Picking()
    if _is_bag(path):
        _need("rosbags", f"{path}, a ROS bag,", "bags")
        from tatvpr_edge.mapping.recordings.bag import bag_frames

        return list(bag_frames(path, picking))
    picking.refuse_topics(path)
    _need("av", f"{path}, a video,", "video")
    from tatvpr_edge.mapping.recordings.video import video_frames

    return list(video_frames(path, picking))


def _need(module: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ToolError(
            f"{what} needs the Python package {module}: pip install 'tatvpr-edge[{extra}]'"
        )
