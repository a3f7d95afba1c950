"""Frames of a folder, each with its name in the map."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.mapping.pictures import open_rgb, read_frame
from tatvpr_edge.runtime.frame import Frame
from tatvpr_edge.spec.framefiles import SUFFIXES, picture_files

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "FrameFile", "drives_of", "frame_files"]


@dataclass(frozen=True)
class FrameFile:
    """A frame and its name in the map: the path below the folder that was given."""

    path: Path
    name: str

    def fetch(self) -> Callable[[], Frame]:
        """What decodes the frame, in any thread. Frames of a recording are fetched fastest in
        their order.

        Raises:
            DataError: as what it gives: damaged, missing or no picture.
        """
        return partial(read_frame, self.path)

    def read(self) -> Frame:
        """The frame, as ``Localizer.query`` takes it.

        Raises:
            DataError: as :meth:`fetch`.
        """
        return self.fetch()()

    def picture(self) -> Image:
        """The frame as a Pillow image, for pages and sheets.

        Raises:
            DataError: as :meth:`fetch`.
        """
        return open_rgb(self.path)


def drives_of(frames: Sequence[FrameFile], one_drive: bool = False) -> list[str]:
    """A name of the drive that each frame is of: every folder is one, because the last frame of a
    room and the first of the next are no neighbours.

    Args:
        one_drive: all of them are one, as where a recorder begins a folder each minute.
    """
    return ["" if one_drive else os.path.dirname(frame.path) for frame in frames]


def frame_files(path: str | Path) -> list[FrameFile]:
    """The pictures below a folder, by name (``f9.jpg`` before ``f10.jpg``); or one file.

    Raises:
        DataError: no such path, no frame in it, or a name that is not UTF-8 (a map could not
            hold it).
    """
    return [FrameFile(file, name) for file, name in picture_files(path)]
