"""Readers of the formats in which places come; their errors name the file and the rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping import Poses, find_poses, frame_files
from tatvpr_edge.mapping.coordinates import to_metres
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.mapping.poses import POSES, read_poses
from tatvpr_edge.mapping.table import read_table
from tatvpr_edge.models.data.places import ClipPlaces, Places
from tatvpr_edge.models.train.config import DataConfig
from tatvpr_edge.spec.errors import DataError


def tower_rows(
    root: Path, split: str, floors: Collection[str] | None = None
) -> list[dict[str, str]]:
    """Rows of ``frames.csv`` of a split, and of ``floors`` alone, clip by clip in the order of
    their frames, whose numbers are whole.

    Raises:
        DataError: the list is missing, a number is none, or a floor or the split is not there.
    """
    table = root / "frames.csv"
    rows = read_table(table, ("path", "split", "floor", "clip", "frame")).rows
    chosen = [
        row for row in rows if row["split"] == split and (floors is None or row["floor"] in floors)
    ]
    missing = sorted(set(floors or ()) - {row["floor"] for row in chosen})
    if missing or not chosen:
        floor = f", floor {missing[0]!r}" if missing else ""
        raise DataError(f"{table}: no frames of split {split!r}{floor}")
    try:
        return sorted(chosen, key=lambda row: (row["floor"], row["clip"], int(row["frame"])))
    except ValueError as error:
        raise DataError(f"{table}: a frame number is not a whole number") from error


def tower(
    root: Path,
    split: str,
    floors: Collection[str] | None = None,
    *,
    window: int = 4,
    gap: int = 3,
    near: int = 0,
) -> ClipPlaces:
    """Clips of the IE tower set: ``frames.csv`` with path, split, floor, clip and frame.

    Args:
        root: the folder of ``frames.csv``.
        split: "train" or "val".
        floors: only these; None for all.
        window, gap, near: see :class:`ClipPlaces`.

    Raises:
        DataError: the list or a file of it is missing, or nothing is left.
    """
    chosen = tower_rows(root, split, floors)
    paths = tuple(root / row["path"] for row in chosen)
    _exist(paths)
    clips: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(chosen):
        clips[row["floor"], row["clip"]].append(index)
    return ClipPlaces(
        name=f"ie_tower {split} ({len({row['floor'] for row in chosen})} floors)",
        paths=paths,
        places=tuple(np.array(clip, dtype=np.int64) for clip in clips.values()),
        territories=tuple(floor for floor, _ in clips),
        window=window,
        gap=gap,
        near=near,
    )


def labelled(root: Path) -> Places:
    """Frames with a ``poses.csv`` beside them whose ``place`` column says what shows the same.

    Raises:
        DataError: the list or a file of it is missing, or no place has two frames.
    """
    frames, labels = labelled_frames(root)
    return group(str(root.name), tuple(frame.path for frame in frames), labels)


def group(name: str, paths: tuple[Path, ...], labels: list[str]) -> Places:
    """Frames with the same label are one place; places with a single frame are left out.

    Raises:
        DataError: no place has two frames.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    places = tuple(np.array(m, dtype=np.int64) for m in members.values() if len(m) > 1)
    if not places:
        raise DataError(f"{name}: no place has two frames, so nothing can be learned from it")
    return Places(name=name, paths=paths, places=places)


def _exist(paths: tuple[Path, ...]) -> None:
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: listed, but there is no such file")


#: Fewest images of a GSV-Cities place that is used, as its authors do.
GSV_IMAGES_PER_PLACE = 4
_GSV_COLUMNS = ("place_id", "year", "month", "northdeg", "city_id", "lat", "lon", "panoid")


def gsv_cities(root: Path, leave_out: Collection[str] = ()) -> Places:
    """GSV-Cities: ``Dataframes/<City>.csv`` and ``Images/<City>/*.jpg``.

    An image is named ``City_placeid_year_month_northdeg_lat_lon_panoid.jpg`` with the place in
    seven digits, the year in four, the month in two and the heading in three.

    Raises:
        DataError: no tables, a malformed row, a missing image, or a city without usable places.
    """
    tables = sorted((root / "Dataframes").glob("*.csv"))
    if not tables:
        raise DataError(f"{root / 'Dataframes'}: no city tables (*.csv) of GSV-Cities")
    known = {table.stem for table in tables}
    unknown = sorted(set(leave_out) - known)
    if unknown:
        raise DataError(f"{root / 'Dataframes'}: no city {unknown[0]!r} to leave out")
    paths: list[Path] = []
    labels: list[str] = []
    for table in tables:
        if table.stem in leave_out:
            continue
        rows = read_table(table, _GSV_COLUMNS).rows
        images: dict[str, int] = defaultdict(int)
        for row in rows:
            images[row["place_id"]] += 1
        used = [row for row in rows if images[row["place_id"]] >= GSV_IMAGES_PER_PLACE]
        if not used:
            raise DataError(f"{table}: no place has {GSV_IMAGES_PER_PLACE} images")
        for row in used:
            paths.append(root / "Images" / row["city_id"] / _gsv_name(table, row))
            labels.append(f"{table.stem}/{row['place_id']}")
    _exist(tuple(paths))
    return group(f"gsv-cities ({len(tables) - len(leave_out)} cities)", tuple(paths), labels)


def _gsv_name(table: Path, row: dict[str, str]) -> str:
    try:
        place = f"{int(row['place_id']) % 10**5:07d}"
        date = f"{int(row['year']):04d}_{int(row['month']):02d}_{int(row['northdeg']):03d}"
    except ValueError as error:
        raise DataError(f"{table}: place_id, year, month, northdeg: {error}") from error
    return f"{row['city_id']}_{place}_{date}_{row['lat']}_{row['lon']}_{row['panoid']}.jpg"


@dataclass(frozen=True)
class Positioned:
    """Frames and where they were taken.

    Attributes:
        paths: one file for each frame.
        positions: float64 [N, 2], x east and y north.
        frame: the pose frame that these are in (``mapping.coordinates``).
        poses: float64 [N, 7], NaN where unknown; None where nobody asks for them.
    """

    paths: tuple[Path, ...]
    positions: NDArray[np.float64]
    frame: str
    poses: NDArray[np.float64] | None = None


def positioned(root: Path, pose_frame: str | None = None) -> Positioned:
    """All frames below ``root``, whose names or ``poses.csv`` say where they were taken.

    Raises:
        DataError: no frames, or positions that are missing or cannot be used.
    """
    frames = frame_files(root)
    found: Poses = find_poses(root, frames, pose_frame=pose_frame)
    if found.source == "none":
        raise DataError(
            f"{root}: its frames have no positions: name them @utm_east@utm_north@..., or put a "
            "poses.csv with name, x, y beside them"
        )
    found.require_all(frames)
    paths = tuple(frame.path for frame in frames)
    return Positioned(paths, found.positions, found.frame, found.values)


def posed(root: Path) -> Positioned:
    """The frames that ``poses.csv`` in ``root`` lists, with their positions.

    Raises:
        DataError: the list or a file of it is missing, or a position is not a finite number.
    """
    table = read_poses(root / POSES)
    frames, rows = table.paired(frame_files(root))
    found = find_poses(root, frames, root / POSES)
    for unknown in np.flatnonzero(found.unknown):
        where = table.table.where(rows[int(unknown)])
        raise DataError(f"{where}: no position: fill it in, or remove the row")
    return Positioned(tuple(f.path for f in frames), found.positions, found.frame, found.values)


#: Side of the square cells into which positioned frames are grouped for training.
CELL_M = 10.0


def cells(name: str, frames: Positioned, cell_m: float = CELL_M) -> Places:
    """Frames in one square cell of the ground are one place (Berton et al., 2022), and in a cube
    where all altitudes of a local frame are known: floors of a building lie above each other.
    Altitudes of satellites are off by as much as a cell, and would part the views of one place.

    Neighbouring cells are different places although their views may overlap: with headings
    unknown, this is the usual compromise.
    """
    metres = to_metres(frames.positions, frames.frame)
    heights = None if frames.poses is None else frames.poses[:, 2]
    if frames.frame == "local" and heights is not None and not np.isnan(heights).any():
        metres = np.column_stack([metres, heights])
    corners = np.floor(metres / cell_m).astype(np.int64)
    return group(name, frames.paths, [",".join(map(str, corner)) for corner in corners])


def gallery_and_queries(root: Path, pose_frame: str | None = None) -> tuple[Positioned, Positioned]:
    """Gallery and queries of a prepared test set: ``database`` and ``queries`` in ``root`` or in
    ``root/images/test``, in one pose frame.

    Raises:
        DataError: no such folders, or positions that cannot be used or compared.
    """
    for folder in (root, root / "images" / "test"):
        if (folder / "database").is_dir() and (folder / "queries").is_dir():
            names = ("database", "queries")
            database, queries = (positioned(folder / name, pose_frame) for name in names)
            if database.frame != queries.frame:
                raise DataError(
                    f"{folder}: positions of database are {database.frame}, those of queries "
                    f"{queries.frame}: they cannot be compared; say --pose-frame"
                )
            return database, queries
    raise DataError(f"{root}: no folders database and queries (nor in images/test)")


def open_source(source: DataConfig) -> Places:
    """The places that one ``[[data]]`` table of a training file names.

    Raises:
        DataError: unknown format, or data that its reader refuses.
    """
    root = Path(source.root)
    if source.format == "tower":
        rows = read_table(root / "frames.csv", ("split", "floor")).rows
        floors = {row["floor"] for row in rows if row["split"] == source.split}
        unknown = sorted(set(source.leave_out) - floors)
        if unknown:
            raise DataError(f"{root / 'frames.csv'}: no floor {unknown[0]!r} to leave out")
        chosen = floors - set(source.leave_out)
        windows = {"window": source.window, "gap": source.gap, "near": source.near}
        return tower(root, source.split, chosen, **windows)
    if source.format == "labelled":
        return labelled(root)
    if source.format == "gsv":
        return gsv_cities(root, source.leave_out)
    if source.format == "utm":
        return cells(root.name, positioned(root))
    if source.format == "poses":
        return cells(root.name, posed(root))
    raise DataError(
        f"unknown data format {source.format!r}: known are tower, labelled, gsv, utm, poses"
    )
