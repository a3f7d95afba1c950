"""Image files to the squares that a model takes, and a cache of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.spec import resize
from tatvpr_edge.spec.atomic import naming, staging
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.workers import in_order

Frames = NDArray[np.uint8]

# Older releases resize tall frames in another order of passes, with other last bits.
_PILLOW_IS_THE_RULE = int(PIL.__version__.partition(".")[0]) >= 13


def squash(
    image: Image.Image, side_px: int, box: tuple[float, float, float, float] | None = None
) -> Frames:
    """``image`` (or its part ``box``) as a square frame ``[side, side, 3]``: Pillow's BILINEAR,
    the same resize that devices do."""
    if box is None and not _PILLOW_IS_THE_RULE:
        return resize.squash(np.asarray(image), side_px)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box))


def load_frames(paths: Sequence[Path], side_px: int, cache: Path | None = None) -> Frames:
    """All frames as one array ``[N, side, side, 3]``, memory-mapped from ``cache`` if given.

    The cache's file name holds :func:`digest_of` them, so that an altered set is decoded anew.
    """
    if cache is None:
        frames = np.empty((len(paths), side_px, side_px, 3), np.uint8)
        _fill(frames, paths, side_px)
        return frames
    target = cache / f"frames-{digest_of(paths, str(side_px).encode())[:24]}.npy"
    shape = (len(paths), side_px, side_px, 3)
    kept = cached(target, np.uint8, shape)
    if kept is None:
        cache.mkdir(parents=True, exist_ok=True)
        with (
            naming(target),
            staging(cache / "frames") as folder,
        ):  # whatever set a killed process was at
            frames = new_array(folder / target.name, np.uint8, shape)
            _fill(frames, paths, side_px)
            frames.flush()
            os.replace(folder / target.name, target)
        kept = np.load(target, mmap_mode="r")
    mapped: Frames = kept
    return mapped


def check_frames(paths: Iterable[Path]) -> None:
    """Raise DataError for the first that cannot be read, before hours of work for the others."""
    for _ in in_order(open_rgb, dict.fromkeys(paths), os.cpu_count() or 1):
        pass


def digest_of(paths: Sequence[Path], beside: bytes = b"") -> str:
    """SHA-256 of what tells that files changed, every path, size and time of change, after what
    stands ``beside`` them.

    Raises:
        DataError: one of them is gone, or cannot be looked at.
    """
    digest = hashlib.sha256(beside)
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        digest.update(os.fsencode(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
    return digest.hexdigest()


def cached(path: Path, kind: type, shape: tuple[int, ...]) -> Any:
    """The array at ``path``, memory-mapped; None where there is none, or (after a power cut) no
    whole one: what is kept can be made again."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError):
        return None
    return array if array.dtype == kind and array.shape[: len(shape)] == shape else None


def new_array(path: Path, kind: type, shape: tuple[int, ...]) -> np.memmap:  # type: ignore[type-arg]
    """A new ``.npy`` at ``path``, memory-mapped to be filled.

    All of it is on the disk before: a disk that becomes full under a mapping ends the process by a
    signal, without a word.

    Raises:
        OSError: no room for it; it names ``path``.
    """
    made = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
    return made


def _fill(frames: Frames, paths: Sequence[Path], side_px: int) -> None:
    for index, path in enumerate(paths):
        frames[index] = squash(open_rgb(path), side_px)
