"""Which reader a source needs, told by how it is written."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.streams.frames import Source
from tatvpr_edge.spec.errors import DataError, ToolError, UsageError
from tatvpr_edge.spec.framefiles import lists_bag
from tatvpr_edge.spec.text import printable
from tatvpr_edge.spec.values import choice, nameable, shown

ReadPicture = Callable[[Path], NDArray[np.uint8]]

BACKENDS = ("opencv", "av")
#: What FFmpeg, which is in both, reads from; what it does not know would be tried for ever.
SCHEMES = (
    *("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srtp", "srt", "udp", "tcp", "tls", "http", "https"),
    *("mmsh", "mmst", "ftp", "sftp", "file"),
)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OPENCV = (
    "OpenCV (apt-get install python3-opencv; JetPack has its own: make virtual environments with "
    "--system-site-packages)"
)
_PYAV = "PyAV (pip install 'tatvpr-edge[video]')"
#: As many as Linux numbers (VIDEO_NUM_DEVICES).
_CAMERAS = 256
#: Endings of recordings, which hold more than a video.
_RECORDINGS = (".bag", ".mcap", ".db3")


def choose(
    source: int | str | os.PathLike[str],
    *,
    backend: str | None,
    rate_hz: float | None,
    read_picture: ReadPicture | None,
) -> Source:
    """The reader of ``source``; nothing is opened yet.

    Raises:
        DataError: no such source.
        ToolError: its reader is not installed, or cannot do this; the text names the remedy.
        UsageError: an unknown ``backend``, or one that cannot read such a source.
    """
    if backend is not None:
        choice(backend, BACKENDS, "backend")
    if isinstance(source, bool) or not isinstance(source, (int, str, os.PathLike)):
        raise _no_source(source)
    if isinstance(source, int) and not 0 <= source < _CAMERAS:
        raise _no_camera(shown(source))
    text = str(source) if isinstance(source, int) else os.fspath(source)
    if not isinstance(text, str) or not text.strip() or _unheard_of(text):
        raise _no_source(source)  # an empty name would be the working folder
    path = Path(os.path.expanduser(text))
    kind = _kind(path)
    if not stat.S_ISDIR(kind):
        _check_utf8(text)
    if isinstance(source, int) or (text.isdecimal() and not path.exists()):
        if int(text) >= _CAMERAS:
            raise _no_camera(text)
        return _device(int(text), f"camera {text}", backend)
    if re.search(r"\s!\s", text):
        if backend == "av":
            raise UsageError("a GStreamer pipeline is read by OpenCV, not by PyAV")
        _need("cv2", "a GStreamer pipeline", _OPENCV)
        from tatvpr_edge.runtime.streams.opencv import OpenCvSource

        return OpenCvSource.pipeline(text)
    if address := _ADDRESS.match(text):
        scheme = address[0][:-3].lower()
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise UsageError(f"{printable(text)} is no address of a stream: those are {known}")
        if not text[address.end() :].strip("/ "):
            raise UsageError(f"{text} is no address: write it as rtsp://HOST/PATH")
        return _film(text, True, backend)
    if text.startswith("/dev/") and (kind == 0 or stat.S_ISCHR(kind)):
        return _device(text, text, backend)
    if stat.S_ISDIR(kind):
        if lists_bag(path):
            raise _recording(path)
        from tatvpr_edge.runtime.streams.folder import FolderSource

        return FolderSource(path, rate_hz, read_picture)
    if stat.S_ISFIFO(kind):
        if backend == "opencv":
            raise UsageError(f"{path}: a FIFO is read by PyAV, not by OpenCV")
        _need("av", f"{path}, a FIFO,", _PYAV)
        from tatvpr_edge.runtime.streams.fifo import FifoSource

        return FifoSource(path)
    if kind == 0:
        raise DataError(
            f"{path}: no such file, folder or device; cameras are /dev/video0 or 0, addresses "
            "rtsp://HOST/PATH"
        )
    if path.suffix.lower() in _RECORDINGS:
        raise _recording(path)
    return _film(str(path), False, backend)


def _no_source(given: object) -> UsageError:
    return UsageError(f"a source is a path, an address or a device's number, not {shown(given)}")


def _no_camera(number: str) -> UsageError:
    return UsageError(
        f"there is no camera {number}: numbers are 0 (/dev/video0) to {_CAMERAS - 1}; "
        "v4l2-ctl --list-devices says which there are"
    )


def _check_utf8(text: str) -> None:
    """Python marks bytes that are no UTF-8 as surrogates: OpenCV crashes on them, and PyAV refuses
    them at every try."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(
            f"{printable(text)} is not UTF-8, so no reader of videos opens it: rename it "
            "(convmv -f latin1 -t utf8 does a whole folder)"
        )


def _unheard_of(text: str) -> bool:
    """Whether neither a file nor an address can be called so."""
    return "\0" in text or not (nameable(text) or _ADDRESS.match(text) or "!" in text)


def _kind(path: Path) -> int:
    """The mode of what is at ``path``; 0 where there is nothing."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _recording(path: Path) -> DataError:
    return DataError(
        f"{path} is a recording, not a stream: `tatvpr-edge query {shlex.quote(str(path))}` asks "
        "of its frames"
    )


def _device(target: int | str, name: str, backend: str | None) -> Source:
    if backend == "av":
        raise UsageError(f"{name}: a camera is read by OpenCV, not by PyAV")
    _need("cv2", f"{name}, a camera,", _OPENCV)
    from tatvpr_edge.runtime.streams.opencv import OpenCvSource

    return OpenCvSource.device(target, name)


def _film(target: str, live: bool, backend: str | None) -> Source:
    """A video file or an address: both readers take them."""
    if backend is None:
        backend = "opencv" if _installed("cv2") or not _installed("av") else "av"
    if backend == "opencv":
        _need("cv2", target, f"{_PYAV} or {_OPENCV}")
        from tatvpr_edge.runtime.streams.opencv import OpenCvSource

        return OpenCvSource.film(target, live)
    _need("av", target, _PYAV)
    from tatvpr_edge.runtime.streams.pyav import AvSource

    return AvSource(target, live)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a module that was blocked on purpose
        return False


def _need(module: str, what: str, remedy: str) -> None:
    if not _installed(module):
        raise ToolError(f"{what} needs {remedy}, which this Python lacks")
