"""Frames, poses and maps on a host: image files and tables go in, place maps come out.

Everything that reads a user's folder of frames reads it here (command line, training, evaluation,
tools), so that a picture has the same pixels and a table the same meaning for all of them. Needs
Pillow (``tatvpr-edge[cli]``); on a board ``runtime.MapWriter`` makes maps with NumPy alone.
"""

from tatvpr_edge.mapping.build import BuiltMap, build_map, extend_map
from tatvpr_edge.mapping.calibrate import Calibrated, calibrate_map
from tatvpr_edge.mapping.describe import Skipped
from tatvpr_edge.mapping.files import FrameFile, frame_files
from tatvpr_edge.mapping.leaned import Leaned, lean_map
from tatvpr_edge.mapping.merge import Merged, merge_maps
from tatvpr_edge.mapping.pictures import open_rgb, read_frame
from tatvpr_edge.mapping.poses import Poses, find_poses
from tatvpr_edge.mapping.recordings import Picking, frames_of, is_recording
from tatvpr_edge.mapping.stats import MapStats, map_stats

__all__ = [
    "BuiltMap",
    "Calibrated",
    "FrameFile",
    "Leaned",
    "MapStats",
    "Merged",
    "Picking",
    "Poses",
    "Skipped",
    "build_map",
    "calibrate_map",
    "extend_map",
    "find_poses",
    "frame_files",
    "frames_of",
    "is_recording",
    "lean_map",
    "map_stats",
    "merge_maps",
    "open_rgb",
    "read_frame",
]
