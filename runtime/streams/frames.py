"""What a source gives and a stream hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tatvpr_edge.runtime.frame import CameraFrame


class NotThereError(Exception):
    """A source that cannot be opened now, or that died; a live one is tried again."""


class DamagedFrameError(Exception):
    """One frame cannot be read; the next one may be."""


@dataclass(frozen=True)
class Grabbed:
    """A frame as its source gives it.

    Attributes:
        image: the pixels, with their format.
        pts_s: the source's own time of it in seconds; None where it has none.
        name: of the file it comes from; "" elsewhere.
    """

    image: CameraFrame
    pts_s: float | None
    name: str = ""


@dataclass(frozen=True)
class StreamFrame:
    """A frame of a stream.

    Attributes:
        image: what ``Localizer.query`` takes; it carries its pixel format.
        time_s: when it arrived, by ``time.monotonic()``.
        pts_s: the source's own time of it in seconds; None where it has none.
        index: its number among the frames that arrived, from 0, dropped ones included.
        dropped: frames dropped between the one handed out before and this one.
        name: of the file it comes from; "" elsewhere.
        opened: how often the source had been opened when it came, from 1: where that has grown, a
            camera was away, and may have been carried elsewhere.
    """

    image: CameraFrame
    time_s: float
    pts_s: float | None
    index: int
    dropped: int
    name: str
    opened: int = 1


class Source(Protocol):
    """Where frames come from. Opened, read and closed by one thread; interrupted by another."""

    #: How a message calls it.
    name: str
    #: Whether it goes on by itself, comes back after its end, and is waited for.
    live: bool

    def open(self) -> None:
        """Begin, or begin again.

        Raises:
            NotThereError: it cannot be opened now.
        """

    def read(self) -> Grabbed | None:
        """The next frame; None at the end.

        Raises:
            DamagedFrameError: this frame cannot be read.
            NotThereError: it died.
        """

    def close(self) -> None:
        """Give back what ``open`` took; also where it was not opened."""

    def interrupt(self) -> None:
        """From another thread: a call that blocks is to return soon, if it can."""
