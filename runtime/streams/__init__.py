"""``stream(source)``: frames of a camera, a video or a folder, for ``Localizer.query``.

In: a V4L2 device, a GStreamer pipeline, an address (rtsp:// ...), a FIFO, a video file, or a folder
of frames. Out: ``StreamFrame``s, whose ``image`` says its own pixel format, so that nobody swaps
red and blue. OpenCV is used where it is installed (JetPack's own is never replaced), PyAV where it
is not; neither is imported before a source needs it.
"""

from __future__ import annotations

import os

from tatvpr_edge.runtime.streams.frames import StreamFrame
from tatvpr_edge.runtime.streams.newest import Stream
from tatvpr_edge.runtime.streams.sources import ReadPicture, choose
from tatvpr_edge.spec.values import above, flag

__all__ = ["Stream", "StreamFrame", "stream"]


def stream(
    source: int | str | os.PathLike[str],
    *,
    realtime: bool = False,
    backend: str | None = None,
    rate_hz: float = 30.0,
    read_picture: ReadPicture | None = None,
) -> Stream:
    """Frames of ``source``, read in a thread: a context manager and an iterator.

    A live source (device, pipeline, address, FIFO) gives its newest frame: what came before and
    nobody took is dropped and counted. It is waited for while it is not there, and opened again
    where it dies, after a quarter of a second, then twice as long each time, up to five seconds.
    Files and folders give every frame, at the pace of whoever takes them.

    Args:
        source: ``0`` or ``/dev/video0``; a GStreamer pipeline (``... ! appsink``); an address such
            as ``rtsp://HOST/PATH``; a FIFO; a video file; or a folder of frames, taken by name.
        realtime: a file or folder plays at its own speed, newest frame first, as a camera would.
        backend: "opencv" or "av" (PyAV); None: OpenCV where it is installed, else PyAV.
        rate_hz: frames a second of a folder that plays in real time.
        read_picture: path -> pixels uint8 [H, W, 3] in RGB, for folders; None: what a board reads.

    Raises:
        DataError: no such source.
        ToolError: what reads it is not installed; the text names the remedy.
        UsageError: another argument is out of range.
    """
    rate_hz = above(rate_hz, 0, "rate_hz", "frames a second, above 0")
    realtime = flag(realtime, "realtime")
    # Pictures have no times of their own but those that playing gives them.
    played_hz = rate_hz if realtime else None
    chosen = choose(source, backend=backend, rate_hz=played_hz, read_picture=read_picture)
    return Stream(chosen, realtime=realtime)
