"""A folder of frames as a stream, in the order of their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.pixels import read_pixels
from tatvpr_edge.runtime.streams.frames import DamagedFrameError, Grabbed
from tatvpr_edge.spec.errors import DataError, FrameError
from tatvpr_edge.spec.framefiles import picture_files

if TYPE_CHECKING:
    from tatvpr_edge.runtime.streams.sources import ReadPicture


class FolderSource:
    """Pictures below a folder, one after the other."""

    live = False

    def __init__(self, path: Path, rate_hz: float | None, read_picture: ReadPicture | None) -> None:
        self.name = str(path)
        self._files = picture_files(path)
        self._rate_hz = rate_hz
        self._read_picture = read_pixels if read_picture is None else read_picture
        self._next = 0

    def open(self) -> None:
        """Begin with the first."""
        self._next = 0

    def read(self) -> Grabbed | None:
        """The next picture; None after the last.

        Raises:
            DamagedFrameError: it cannot be read.
        """
        if self._next >= len(self._files):
            return None
        number, (path, name) = self._next, self._files[self._next]
        self._next += 1
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DamagedFrameError(f"{path} is no file but a pipe or a device: remove it")
        try:
            image = check_frame(self._read_picture(path))
        except DataError as error:
            raise DamagedFrameError(str(error)) from None
        except FrameError as error:
            text = str(error)
            raise DamagedFrameError(text if str(path) in text else f"{path}: {text}") from None
        pts_s = None if self._rate_hz is None else number / self._rate_hz
        return Grabbed(image, pts_s, name)

    def close(self) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """A picture is read in milliseconds."""
