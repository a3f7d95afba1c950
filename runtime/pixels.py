"""Frames out of files on a board, for its own commands, with NumPy alone.

In: PPM and PGM (binary), or NumPy's ``.npy``; other pictures where the board has OpenCV, which most
robots do. On a host ``tatvpr_edge.read_frame`` reads them all.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import FrameError

_Made = TypeVar("_Made")
_MOST_BYTES = 256 << 20
#: Magic, width, height, largest value, each after white space or comments (netpbm's ppm(5)).
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(
    rb"P([56])" + _SPACE.join([b"", rb"(\d{1,6})", rb"(\d{1,6})", rb"(\d{1,5})"]) + rb"\s"
)


def read_pixels(path: str | Path) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3] in RGB, or [H, W] for gray.

    Raises:
        FrameError: the file is missing, damaged, or of a kind that this board cannot read.
    """
    path = Path(os.path.expanduser(path))  # "~nobody" stays as it is, and is missing
    try:
        status = path.stat()
        if status.st_size > _MOST_BYTES or stat.S_ISCHR(status.st_mode):
            raise FrameError(f"{path}: too large to be a camera's frame")
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: {error.strerror}") from None
    if data.startswith(b"\x93NUMPY"):
        return _numpy(path, data)
    if data[:2] in (b"P5", b"P6"):
        return _pnm(path, data)
    return _by_opencv(path, data)


def each_frame(
    names: Sequence[str], use: Callable[[str, NDArray[np.uint8]], _Made]
) -> tuple[list[_Made], list[dict[str, str]]]:
    """What ``use(name, pixels)`` makes of each file; and those left out, with name and reason,
    because they cannot be read or are refused as frames."""
    made, skipped = [], []
    for name in names:
        try:
            pixels = read_pixels(name)
            try:
                made.append(use(name, pixels))
            except FrameError as error:
                raise FrameError(f"{name}: {error}") from None
        except FrameError as error:
            skipped.append({"name": name, "reason": str(error)})
    return made, skipped


def _numpy(path: Path, data: bytes) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise FrameError(f"{path} is no array of pixels ({error})") from None
    return pixels


def _pnm(path: Path, data: bytes) -> NDArray[np.uint8]:
    head = _PNM.match(data)
    if head is None or int(head[4]) != 255:
        raise FrameError(f"{path} is no PPM or PGM of 8 bits")
    width, height, channels = int(head[2]), int(head[3]), 3 if head[1] == b"6" else 1
    size = width * height * channels
    if len(data) - head.end() < size:
        raise FrameError(f"{path} is cut short: {len(data) - head.end()} of {size} bytes of pixels")
    pixels = np.frombuffer(data, np.uint8, size, head.end())
    return pixels.reshape((height, width, 3) if channels == 3 else (height, width))


def _by_opencv(path: Path, data: bytes) -> NDArray[np.uint8]:
    if importlib.util.find_spec("cv2") is None:
        raise FrameError(
            f"{path}: without OpenCV a board reads .ppm, .pgm and .npy: apt-get install "
            "python3-opencv, or query from a host"
        )
    cv2 = importlib.import_module("cv2")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    except cv2.error:  # an empty file, or one of more pixels than it takes
        pixels = None
    if pixels is None:
        raise FrameError(f"{path} is no picture that OpenCV can read")
    rgb: NDArray[np.uint8] = np.ascontiguousarray(pixels[:, :, ::-1])
    return rgb
