"""Video files and addresses through PyAV, which carries its own FFmpeg."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.streams.frames import DamagedFrameError, Grabbed, NotThereError

#: Seconds after which an address that does not answer counts as dead.
_PATIENCE_S = 5.0
#: Of live sources: a short look at the format. (FFmpeg's "nobuffer" would throw away what it has
#: looked at; here what is old by then is dropped anyway.)
_LIVE = {"probesize": "500000", "analyzeduration": "500000"}
#: How many frames H.264 and H.265 let a decoder keep back, to show them after later ones.
_KEPT_BACK = 16


class AvSource:
    """What ``av.open`` reads; its pixels are converted to red, green, blue."""

    def __init__(self, target: str, live: bool) -> None:
        self.name = target
        self.live = live
        self._container: Any = None
        self._grabbed: Iterator[Grabbed | DamagedFrameError] = iter(())

    def input(self) -> Any:
        """What ``av.open`` opens."""
        return self.name

    def open(self) -> None:
        """Begin, or begin again.

        Raises:
            NotThereError: it cannot be opened, or holds no video.
        """
        import av

        options = dict(_LIVE) if self.live else {}
        if self.name.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        limit = (_PATIENCE_S, _PATIENCE_S) if self.live else None
        try:
            self._container = av.open(self.input(), options=options, timeout=limit)
        except NotThereError:
            raise
        except Exception as error:  # PyAV raises a dozen classes at bytes that are no video
            raise NotThereError(f"{self.name}: {said(error)}") from None
        videos = self._container.streams.video
        if not videos:
            raise NotThereError(f"{self.name}: it holds no video")
        # Threads by frame would keep as many frames alive as there are threads.
        videos[0].thread_type = "SLICE"
        self._grabbed = self._decoded(videos[0])

    def _decoded(self, video: Any) -> Iterator[Grabbed | DamagedFrameError]:
        reorders = decoding_times(self._container, video)
        for frame in in_order(reorders, self._frames(video)):
            if isinstance(frame, DamagedFrameError):
                yield frame
            else:
                yield Grabbed(check_frame(pixels_of(frame)), frame.time)

    def _frames(self, video: Any) -> Iterator[Any]:
        import av

        for packet in self._container.demux(video):
            try:
                yield from packet.decode()
            except av.InvalidDataError as error:
                yield DamagedFrameError(f"{self.name}: a frame is damaged ({said(error)})")

    def read(self) -> Grabbed | None:
        """The next frame; None at the end.

        Raises:
            DamagedFrameError: this one cannot be decoded.
            NotThereError: the source died.
        """
        try:
            grabbed = next(self._grabbed, None)
        except Exception as error:
            if self.live:
                raise NotThereError(f"{self.name}: {said(error)}") from None
            self._grabbed = iter(())
            raise DamagedFrameError(
                f"{self.name}: it breaks off before its end ({said(error)})"
            ) from None
        if isinstance(grabbed, DamagedFrameError):
            raise grabbed
        return grabbed

    def close(self) -> None:
        """Give the file or connection back."""
        self._grabbed = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def interrupt(self) -> None:
        """Its time limits end a call."""


def decoding_times(container: Any, video: Any) -> bool:
    """Whether the frames of ``video``, a stream of it, may have the times of their decoding: an AVI
    knows no others, and what is made of them is wrong where H.264 or H.265 shows frames in another
    order. A codec that cannot do that (MJPEG) has right ones, and can be sought by them."""
    context = video.codec_context  # None where nothing decodes it
    return bool(container.format.name == "avi" and context and context.codec.reorder)


def in_order(reorders: bool, frames: Iterable[Any]) -> Iterator[Any]:
    """``frames`` as the decoder gives them, which is the order of showing, with times in that
    order: where ``reorders``, the earliest of those that come next. Errors among them pass by;
    what ends them comes after all frames that were decoded."""
    if not reorders:
        yield from frames
        return
    held: deque[Any] = deque()
    times: list[int] = []

    def first() -> Any:
        frame = held.popleft()
        if frame.pts is not None:
            frame.pts = heapq.heappop(times)
        return frame

    ended: Exception | None = None
    try:
        for frame in frames:
            if isinstance(frame, Exception):
                yield frame
                continue
            held.append(frame)
            if frame.pts is not None:
                heapq.heappush(times, frame.pts)
            if len(held) > _KEPT_BACK:
                yield first()
    except Exception as error:
        ended = error
    while held:
        yield first()
    if ended is not None:
        raise ended


def pixels_of(frame: Any) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3], RGB, of PyAV's frame; turned as a phone's video says that it is to
    be shown, which OpenCV does by itself."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def said(error: Exception) -> str:
    """What PyAV or the system says of an error."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
