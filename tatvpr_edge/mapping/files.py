"""Frames of a folder, each with its name in the map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.spec.framefiles import SUFFIXES, picture_files

__all__ = ["SUFFIXES", "FrameFile", "frame_files"]


@dataclass(frozen=True)
class FrameFile:
    """A frame and its name in the map: the path below the folder that was given."""

    path: Path
    name: str


def frame_files(path: str | Path) -> list[FrameFile]:
    """The pictures below a folder, sorted by name; or one file.

    Raises:
        DataError: no such path, no frame in it, or a name that is not UTF-8 (a map could not
            hold it).
    """
    return [FrameFile(file, name) for file, name in picture_files(path)]
