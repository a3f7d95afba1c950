# ruff: noqa: I001
"""The public names of ``tatvpr_edge.mapping``, imported when the first of them is asked for.

Each under its own name, which is how a checker of types knows that it is public.
"""

from tatvpr_edge.mapping.build import (
    BuiltMap as BuiltMap,
    build_map as build_map,
    extend_map as extend_map,
)
from tatvpr_edge.mapping.calibrate import Calibrated as Calibrated, calibrate_map as calibrate_map
from tatvpr_edge.mapping.describe import Skipped as Skipped
from tatvpr_edge.mapping.files import FrameFile as FrameFile, frame_files as frame_files
from tatvpr_edge.mapping.leaned import Leaned as Leaned, lean_map as lean_map
from tatvpr_edge.mapping.merge import Merged as Merged, merge_maps as merge_maps
from tatvpr_edge.mapping.pictures import open_rgb as open_rgb, read_frame as read_frame
from tatvpr_edge.mapping.poses import Poses as Poses, find_poses as find_poses
from tatvpr_edge.mapping.recordings.opening import (
    frames_of as frames_of,
    is_recording as is_recording,
)
from tatvpr_edge.mapping.recordings.picking import Picking as Picking
from tatvpr_edge.mapping.stats import MapStats as MapStats, map_stats as map_stats
