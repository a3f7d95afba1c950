"""Where frames were taken: from a table, from ``poses.csv`` beside them, or from their names."""

from __future__ import annotations

import logging
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.coordinates import check_positions, guess_frame
from tatvpr_edge.mapping.describe import Skipped
from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.mapping.recordings.frames import RecordedFrame
from tatvpr_edge.mapping.rotation import quaternions
from tatvpr_edge.mapping.table import Table, read_table
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.values import path as check_path

_LOG = logging.getLogger("tatvpr_edge")

POSES = "poses.csv"
#: Columns that name a frame, the first of them that a table has.
_NAMES = ("name", "path", "file", "image", "filename")
#: Pairs of columns (east, north) and the pose frame that each says.
_POSITIONS = (
    ("x", "y", "local"),
    ("easting", "northing", "utm"),
    ("utm_east", "utm_north", "utm"),
    ("longitude", "latitude", "geographic"),
    ("lon", "lat", "geographic"),
    ("lng", "lat", "geographic"),
    ("longitude_deg", "latitude_deg", "geographic"),
    ("lon_deg", "lat_deg", "geographic"),
)
_HEADER = (
    "a header with name, x, y (or easting, northing; or latitude, longitude) and optionally z and "
    "qx, qy, qz, qw or yaw_deg"
)


@dataclass(frozen=True)
class Poses:
    """Poses float64 [N, 7] (x y z qx qy qz qw, NaN unknown), their frame, and their source.

    ``frame`` is "local", "utm" or "geographic" (``mapping.coordinates``); ``source`` is the
    table's path, a recording's topic, "names" or "none".
    """

    values: NDArray[np.float64]
    frame: str
    source: str

    @property
    def positions(self) -> NDArray[np.float64]:
        """float64 [N, 2]: x east, y north."""
        return self.values[:, :2]

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """bool [N]: which frames' positions are unknown."""
        return np.asarray(np.isnan(self.positions).any(axis=1))

    def without(self, frames: Sequence[FrameFile]) -> list[Skipped]:
        """Those of ``frames`` whose positions are unknown, as frames that are left out."""
        lost = [frames[int(index)].name for index in np.flatnonzero(self.unknown)]
        return [Skipped(name, f"{name}: no position in {self.source}") for name in lost]

    def require_all(self, frames: Sequence[FrameFile]) -> None:
        """Raise a DataError where a position of ``frames`` is unknown, as a map may have some."""
        unknown = np.flatnonzero(self.unknown)
        if unknown.size:
            raise DataError(
                f"{self.source} says no position of {frames[int(unknown[0])].name}: fill it in, or "
                "remove the frame"
            )


def find_poses(
    folder: str | Path,
    frames: Sequence[FrameFile],
    table: str | Path | None = None,
    pose_frame: str | None = None,
) -> Poses:
    """The poses of ``frames``: from ``table``, else ``poses.csv`` in their folder, else the topic
    of poses that their recording was read with (frames outside its times have none), else their
    names ``@utm_e@utm_n@...`` or ``@latitude@longitude@...``, else unknown. A ``poses.csv`` that
    says only which frames show one place, as ``finetune`` takes it, says nothing of positions; nor
    does one without a row for the only frame.

    Args:
        folder: what ``frames`` were found below.
        pose_frame: what the positions are, where the user says so.

    Raises:
        DataError: a table that cannot be used or that lacks a frame, or names whose meaning
            cannot be told.
        UsageError: ``folder`` is no path.
    """
    inside = check_path(folder, "folder", "where the frames were found") / POSES
    given = None if table is None else read_poses(table)
    if given is None and os.path.isfile(inside):
        beside = read_poses(inside)
        # A picture that is asked for by itself may lie beside a table of others.
        of_others = len(frames) == 1 and beside.rows_of(frames) == [None]
        given = None if beside.labels_alone or of_others else beside
    if given is not None:
        return _from_table(given, frames, pose_frame)
    recorded = [frame for frame in frames if isinstance(frame, RecordedFrame)]
    if recorded and recorded[0].poses_from:
        return _from_recording(recorded, pose_frame)
    found = _from_names(frames, pose_frame)
    if found.source == "none" and given is None:
        _tell_of_tables_below(inside, frames)
    return found


def _tell_of_tables_below(inside: Path, frames: Sequence[FrameFile]) -> None:
    """Whoever has a table for each drive is told that none of them is read."""
    folders = {frame.path.parent for frame in frames if not isinstance(frame, RecordedFrame)}
    below = sorted(
        f / POSES for f in folders if (f / POSES) != inside and os.path.isfile(f / POSES)
    )
    if below and len(frames) > 1:
        _LOG.warning(
            "%s is not read, nor is any other below %s: write all rows into %s, with names as "
            "paths below it",
            below[0], inside.parent, inside,
        )  # fmt: skip


def _from_recording(frames: Sequence[RecordedFrame], pose_frame: str | None) -> Poses:
    said, topic = frames[0].pose_frame, frames[0].poses_from
    if pose_frame not in (None, said) and said != "local":
        raise DataError(f"{topic} says {said}, --pose-frame says {pose_frame}")
    frame = pose_frame or said
    values = np.array([(np.nan,) * 7 if f.pose is None else f.pose for f in frames])
    known = np.flatnonzero(~np.isnan(values[:, 0]))
    check_positions(values[known, :3], frame, [frames[int(index)].name for index in known])
    return Poses(values, frame, topic)


# ---- names -----------------------------------------------------------------------------------


def _from_names(frames: Sequence[FrameFile], pose_frame: str | None) -> Poses:
    texts = [_position_text(frame) for frame in frames]
    given = [text for text in texts if text is not None]
    if not given:
        return Poses(np.full((len(frames), 7), np.nan), pose_frame or "local", "none")
    if len(given) < len(texts):
        missing = frames[texts.index(None)].name
        raise DataError(
            f"{missing} has no position in its name, and other frames have: name it "
            "@utm_e@utm_n@..., or put a poses.csv with name, x, y beside them"
        )
    names = [frame.name for frame in frames]
    pairs = np.array([[float(a), float(b)] for a, b in given])
    frame = pose_frame or guess_frame(names, given, pairs)
    # Names give latitude first, as the field does; x points east.
    positions = pairs[:, ::-1] if frame == "geographic" else pairs
    check_positions(positions, frame, names)
    values = np.full((len(frames), 7), np.nan)
    values[:, :2] = positions
    return Poses(values, frame, "names")


def _position_text(frame: FrameFile) -> tuple[str, str] | None:
    """The first two numbers of ``@a@b@...``; height and heading stay unknown."""
    name = posixpath.basename(frame.name)
    if not name.startswith("@"):
        return None
    parts = name.split("@")
    try:
        if np.isfinite([float(parts[1]), float(parts[2])]).all():
            return parts[1], parts[2]
    except (IndexError, ValueError):
        pass
    raise DataError(
        f"{frame.name} begins with @ and is not named @utm_e@utm_n@...: rename it, or put a "
        "poses.csv with name, x, y beside it"
    )


# ---- tables ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoseTable:
    """A table of frames: which column names them, and how rows and files find each other."""

    table: Table
    key: str

    @property
    def labels_alone(self) -> bool:
        """Whether a column ``place`` stands there and none of positions."""
        columns = set(self.table.columns)
        told = {name for east, north, _ in _POSITIONS for name in (east, north)}
        return "place" in columns and not columns & told

    def rows_of(self, frames: Sequence[FrameFile]) -> list[int | None]:
        """For each frame the number of its row, None where it has none.

        A row names its frame by the path below the frames' folder, by the path from the table's
        folder, or, where no other frame is called so, by the file's name alone.

        Raises:
            DataError: two rows name one frame, or one row two frames.
        """
        rows: dict[str, int] = {}
        for index, row in enumerate(self.table.rows):
            name = _normal(row[self.key])
            if not row[self.key]:
                raise DataError(f"{self.table.where(index)}: names no frame")
            if name in rows:
                raise DataError(
                    f"{self.table.where(index)}: {row[self.key]} stands on line "
                    f"{self.table.lines[rows[name]]} already: remove one of the two"
                )
            rows[name] = index
        here = os.path.abspath(self.table.path.parent)
        found: list[int | None] = []
        owners: dict[int, FrameFile] = {}
        for frame in frames:
            ways = (
                frame.name,
                os.path.relpath(os.path.abspath(frame.path), here),
                posixpath.basename(frame.name),
            )
            row_of = next((rows[n] for n in map(_normal, ways) if n in rows), None)
            if row_of is not None:
                if row_of in owners:
                    raise DataError(
                        f"{self.table.where(row_of)}: {self.table.rows[row_of][self.key]} fits "
                        f"{owners[row_of].name} and {frame.name}: write the folder in its name too"
                    )
                owners[row_of] = frame
            found.append(row_of)
        return found

    def paired(self, frames: Sequence[FrameFile]) -> tuple[list[FrameFile], list[int]]:
        """The frames that the table lists, in its order, with their rows; for training, where a
        table chooses the frames.

        Raises:
            DataError: a row names no file of the folder.
        """
        rows = self.rows_of(frames)
        pairs = sorted(
            ((r, f) for r, f in zip(rows, frames, strict=True) if r is not None),
            key=lambda pair: pair[0],
        )
        if len(pairs) < len(self.table):
            known = {row for row, _ in pairs}
            index = next(i for i in range(len(self.table)) if i not in known)
            raise DataError(
                f"{self.table.path.parent / self.table.rows[index][self.key]}: listed, but there "
                "is no such file"
            )
        return [frame for _, frame in pairs], [row for row, _ in pairs]

    def positions(self) -> tuple[NDArray[np.float64], str]:
        """float64 [rows, 2] (x east, y north; both NaN where the cells are empty or NaN) and their
        pose frame.

        Raises:
            DataError: no columns of positions, or half a position.
        """
        columns = self.table.columns
        pairs = [pair for pair in _POSITIONS if pair[0] in columns and pair[1] in columns]
        if not pairs:
            raise _no_header(self.table)
        frames = {frame for *_, frame in pairs}
        if len(pairs) > 1 and "local" not in frames:
            raise DataError(
                f"{self.table.path} has positions as {' and as '.join(sorted(frames))}: "
                "keep one pair of columns"
            )
        # x and y are what this project documents: they win over what else a log happens to hold.
        east, north, frame = pairs[0]
        values = np.array(
            [
                [self.table.number(i, east), self.table.number(i, north)]
                for i in range(len(self.table))
            ]
        ).reshape(-1, 2)
        half = np.isnan(values).sum(axis=1) == 1
        if half.any():
            index = int(np.argmax(half))
            raise DataError(
                f"{self.table.where(index)}: half a position: give {east} and {north}, or leave "
                "both empty where it is unknown"
            )
        return values, frame


def read_poses(path: str | Path, required: Sequence[str] = ()) -> PoseTable:
    """The table of frames at ``path``.

    Raises:
        DataError: as ``read_table``, or no column names the frames.
    """
    table = read_table(path, required)
    key = next((name for name in _NAMES if name in table.columns), None)
    if key is None:
        raise _no_header(table)
    return PoseTable(table, key)


def _no_header(table: Table) -> DataError:
    found = ", ".join(column for column in table.columns if column)[:100] or "(none)"
    between = ", between commas, semicolons or tabs" if len(table.columns) == 1 else ""
    return DataError(f"{table.path} has the columns {found}: expected {_HEADER}{between}")


def _from_table(poses: PoseTable, frames: Sequence[FrameFile], pose_frame: str | None) -> Poses:
    table = poses.table
    positions, said = poses.positions()
    if pose_frame not in (None, said) and said != "local":
        raise DataError(f"{table.path}: its columns say {said}, --pose-frame says {pose_frame}")
    frame = pose_frame or said
    rows = poses.rows_of(frames)
    if None in rows:
        missing = frames[rows.index(None)].name
        raise DataError(f"{table.path} has no row for {missing}: add it, or remove the frame")
    chosen = [row for row in rows if row is not None]
    values = np.full((len(table), 7), np.nan)
    values[:, :2] = positions
    if "z" in table.columns:
        values[:, 2] = [table.number(i, "z") for i in range(len(table))]
    values[:, 3:] = quaternions(table)
    known = np.flatnonzero(~np.isnan(positions[:, 0]))
    check_positions(values[known, :3], frame, [table.where(int(i)) for i in known])
    return Poses(values[chosen], frame, str(table.path))


def _normal(name: str) -> str:
    """A path as it is compared: ``./f.jpg`` is ``f.jpg``, and letters with accents are one way."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.strip().replace("\\", "/")))
