"""Frames on disk: which files, their pixels, and where they were taken."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.spec.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png")
POSES = "poses.csv"
_COORDINATES = ("x", "y", "z", "qx", "qy", "qz", "qw")
_NAMES = ("name", "path", "file", "image")


@dataclass(frozen=True)
class FrameFile:
    """A frame and its name in the map: the path below the folder that was given."""

    path: Path
    name: str


def frame_files(path: str | Path) -> list[FrameFile]:
    """The JPEG and PNG files below a folder, sorted by name; or one file.

    Raises:
        DataError: no such path, or no frame in it.
    """
    path = Path(path)
    if path.is_file():
        return [FrameFile(path, path.name)]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder of frames")
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                file = Path(folder) / name
                found.append(FrameFile(file, file.relative_to(path).as_posix()))
    if not found:
        raise DataError(f"{path} holds no frame: expected files named *.jpg, *.jpeg or *.png")
    return sorted(found, key=lambda frame: frame.name)


def read_frame(path: str | Path) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, 3] of an image file, in RGB, upright as its EXIF says.

    Gray becomes three equal channels, palettes are looked up, transparency is dropped, 16-bit gray
    keeps its upper byte.

    Raises:
        DataError: the file is missing, no image, cut short, or absurdly large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):
                    deep = np.asarray(upright).astype(np.int64)
                    gray = np.clip(deep >> 8, 0, 255).astype(np.uint8)
                    return np.repeat(gray[:, :, None], 3, axis=2)
                return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{path}: too many pixels to be a camera's frame; shrink it") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is no image that can be read: expected JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): replace it or remove it") from None


@dataclass(frozen=True)
class Poses:
    """Poses float64 [N, 7] (x y z qx qy qz qw, NaN unknown), their frame, and their source."""

    values: NDArray[np.float64]
    frame: str
    source: str


def find_poses(
    folder: str | Path, frames: Sequence[FrameFile], table: str | Path | None = None
) -> Poses:
    """The poses of ``frames``: from ``table``, else ``poses.csv`` in their folder, else their
    names ``@utm_e@utm_n@...``, else unknown.

    Raises:
        DataError: a table that cannot be used, or that lacks a frame.
    """
    inside = Path(folder) / POSES
    if table is None and inside.is_file():
        table = inside
    if table is not None:
        return Poses(_from_table(Path(table), frames), "local", str(table))
    named = [_from_name(frame) for frame in frames]
    if any(pose is not None for pose in named):
        missing = next((f.name for f, pose in zip(frames, named, strict=True) if pose is None), "")
        if missing:
            raise DataError(
                f"{missing} has no position in its name, and other frames have: name it "
                "@utm_e@utm_n@..., or give --poses FILE"
            )
        return Poses(np.array(named, dtype=np.float64), "utm", "names")
    return Poses(np.full((len(frames), 7), np.nan), "local", "none")


def _from_name(frame: FrameFile) -> list[float] | None:
    """``@utm_east@utm_north@...`` in metres; height and heading stay unknown."""
    name = Path(frame.name).name
    if not name.startswith("@"):
        return None
    parts = name.split("@")
    try:
        east, north = float(parts[1]), float(parts[2])
        if not np.isfinite([east, north]).all():
            raise ValueError
    except (IndexError, ValueError):
        raise DataError(
            f"{frame.name} begins with @ and is not named @utm_e@utm_n@...: rename it, or give "
            "--poses FILE"
        ) from None
    return [east, north, *([float("nan")] * 5)]


def _from_table(path: Path, frames: Sequence[FrameFile]) -> NDArray[np.float64]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as source:
            reader = csv.DictReader(source)
            columns = list(reader.fieldnames or ())
            key = next((name for name in _NAMES if name in columns), None)
            if key is None or "x" not in columns or "y" not in columns:
                raise DataError(
                    f"{path} has the columns {', '.join(columns)[:100] or '(none)'}: expected a "
                    "header with name, x, y and optionally z, qx, qy, qz, qw"
                )
            rows = {}
            for line, row in enumerate(reader, start=2):
                rows[str(row[key])] = _pose(row, path, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the poses {path}: {error}") from None
    poses = []
    for frame in frames:
        pose = rows.get(frame.name, rows.get(Path(frame.name).name))
        if pose is None:
            raise DataError(f"{path} has no row for {frame.name}: add it, or remove the frame")
        poses.append(pose)
    return np.array(poses, dtype=np.float64)


def _pose(row: dict[str, str], path: Path, line: int) -> list[float]:
    try:
        values = [float(row.get(name) or "nan") for name in _COORDINATES]
    except ValueError as error:
        raise DataError(f"{path}, line {line}: {error}") from None
    if np.isinf(values).any() or np.isnan(values[:2]).any():
        raise DataError(f"{path}, line {line}: x and y must be finite numbers")
    return values
