"""Frames of videos, through PyAV: their times first, then the pixels of those that are taken.

Videos are others' bytes: whatever PyAV raises at them means that they are damaged.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tatvpr_edge.mapping.recordings.frames import RecordedFrame, broken
from tatvpr_edge.mapping.recordings.picking import Picker, Picking
from tatvpr_edge.runtime.frame import Frame
from tatvpr_edge.runtime.streams.pyav import decoding_times, in_order, pixels_of, said
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.shortage import refuse_shortage

#: The order of decoding is the order of these times, but for what a careless writer rounds.
SET_BACK_S = 0.1


def video_frames(path: Path, picking: Picking) -> list[RecordedFrame]:
    """The frames of the video at ``path`` that ``picking`` takes, in the order of showing. Their
    names are the video's and their seconds from its beginning.

    Raises:
        DataError: no such file, no video in it, or no frame.
    """
    video = Video(path)
    times, fault = video.times()
    picker = Picker(picking)
    found = [
        _frame(path, seconds, partial(video.frame, pts))
        for pts in sorted(times)
        if picker.takes(round((seconds := video.seconds(pts)) * 1e9), None)
    ]
    if not found:
        raise DataError(fault or f"{path} holds no frames")
    if fault is not None:
        found.append(_frame(path, video.seconds(max(times)), broken(fault), " (end)"))
    return found


def _frame(
    path: Path, seconds: float, load: Callable[[], Callable[[], Frame]], mark: str = ""
) -> RecordedFrame:
    name = f"{path.stem} {seconds:.3f}s{mark}"
    return RecordedFrame(path / name, name, load)


class Video:
    """A video that is open until nobody knows it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._open()
        self._base: Any = self._stream.time_base

    def _open(self) -> None:
        import av

        try:
            container = av.open(str(self.path))
        except Exception as error:
            refuse_shortage(error, f"{self.path}")
            raise DataError(f"{self.path} is no video that can be read ({said(error)})") from None
        self._container = container
        self._close = weakref.finalize(self, container.close)
        if not container.streams.video:
            raise DataError(f"{self.path} holds no video")
        self._stream: Any = container.streams.video[0]
        self._stream.thread_type = "SLICE"
        self._frames: Iterator[Any] = iter(())
        #: The frame that was come to, and when the one before it is shown: nothing lies between.
        self._frame: Any = None
        self._passed: float = math.inf

    def seconds(self, pts: int) -> float:
        """From the beginning of the video to ``pts``."""
        return float((pts - (self._stream.start_time or 0)) * self._base)

    def times(self) -> tuple[array[int], str | None]:
        """When each frame is shown, in the video's own units, without decoding any; and why this
        breaks off before the end, where it does."""
        times = array("q")
        fault = None
        decoded: int | None = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    if decoded is not None and (decoded - packet.dts) * self._base > SET_BACK_S:
                        # A time names a frame: those that come twice would be the first ones.
                        at_s = self.seconds(max(times, default=decoded))
                        raise DataError(
                            f"{self.path}: its clock is set back after {at_s:.3f} s, as where "
                            "files were joined, and the rest is not read: 'ffmpeg -i FILE -c copy "
                            "OUT.mkv' gives it one clock"
                        )
                    decoded = packet.dts
                if packet.pts is not None:
                    times.append(packet.pts)
        except DataError as error:
            fault = str(error)
        except Exception as error:
            refuse_shortage(error, f"{self.path}")
            fault = f"{self.path} breaks off before its end ({said(error)})"
        return times, fault

    def frame(self, pts: int) -> Callable[[], Frame]:
        """What converts the frame shown at ``pts``. Going forward decodes each frame once.

        Raises:
            DataError: it cannot be decoded.
        """
        with self._lock:
            if pts <= self._passed:
                self._begin(pts)
            while self._frame is not None and self._frame.pts < pts:
                self._passed = self._frame.pts
                self._frame = next(self._frames, None)
            if self._frame is not None and self._frame.pts == pts:
                return partial(pixels_of, self._frame)
        raise DataError(f"{self.path}: its frame at {self.seconds(pts):.3f} s is damaged")

    def _begin(self, pts: int) -> None:
        """Come to a frame that is not behind ``pts``, if there is one."""
        # Where it cannot be sought, or times are those of decoding (.avi), or what is found lies
        # behind (.ts), it is read from its beginning.
        reorders = decoding_times(self._container, self._stream)
        if not reorders:
            with contextlib.suppress(Exception):
                self._container.seek(pts, backward=True, stream=self._stream)
            self._frames = self._decoded()
            self._frame = next(self._frames, None)
            if self._frame is not None and self._frame.pts <= pts:
                self._passed = self._frame.pts - 1
                return
        self._close()
        self._open()
        self._frames = in_order(reorders, self._decoded())
        self._frame = next(self._frames, None)
        self._passed = -math.inf

    def _decoded(self) -> Iterator[Any]:
        """Every frame from here on that can be decoded and says when it is shown."""
        import av

        with contextlib.suppress(Exception):  # it breaks off: times() has said so
            for packet in self._container.demux(self._stream):
                with contextlib.suppress(av.InvalidDataError):
                    yield from (frame for frame in packet.decode() if frame.pts is not None)
