# ruff: noqa: F403, F405
"""Frames, poses and maps on a host: image files and tables go in, place maps come out.

Everything that reads a user's folder of frames reads it here (command line, training, evaluation,
tools), so that a picture has the same pixels and a table the same meaning for all of them. Needs
Pillow (``tatvpr-edge[cli]``); on a board ``runtime.MapWriter`` makes maps with NumPy alone.

Nothing is imported eagerly: where a package imports its own parts and two threads import different
ones at once, Python takes that for a deadlock, and one of the imports fails.
"""

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all of this
if TYPE_CHECKING:
    from tatvpr_edge.mapping.names import *

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


def __getattr__(name: str) -> object:
    """One of ``__all__``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tatvpr_edge.mapping import names

    globals()[name] = value = getattr(names, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
