"""Readers of the formats in which places come; their errors name the file and the rule."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np

from tatvpr_edge.models.data.places import ClipPlaces, Places
from tatvpr_edge.models.train.config import DataConfig
from tatvpr_edge.spec.errors import DataError


def read_rows(path: Path, required: Collection[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must have the columns ``required``.

    Raises:
        DataError: no such file, a missing column, a row of another length, or no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lacking = sorted(set(required) - set(reader.fieldnames or ()))
            if lacking:
                raise DataError(f"{path}: no column {', '.join(lacking)}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: has no rows")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise DataError(f"{path}, line {number}: has another number of columns than line 1")
    return rows


def tower(root: Path, split: str, floors: Collection[str] | None = None) -> ClipPlaces:
    """Clips of the IE tower set: ``frames.csv`` with path, split, floor, clip and frame.

    Args:
        root: the folder of ``frames.csv``.
        split: "train" or "val".
        floors: only these; None for all.

    Raises:
        DataError: the list or a file of it is missing, or nothing is left.
    """
    rows = read_rows(root / "frames.csv", ("path", "split", "floor", "clip", "frame"))
    chosen = [
        row for row in rows if row["split"] == split and (floors is None or row["floor"] in floors)
    ]
    if not chosen:
        raise DataError(f"{root / 'frames.csv'}: no frames of split {split!r}, floors {floors}")
    try:
        chosen.sort(key=lambda row: (row["floor"], row["clip"], int(row["frame"])))
    except ValueError as error:
        raise DataError(f"{root / 'frames.csv'}: a frame number is not a whole number") from error
    paths = tuple(root / row["path"] for row in chosen)
    _exist(paths)
    clips: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(chosen):
        clips[row["floor"], row["clip"]].append(index)
    return ClipPlaces(
        name=f"ie_tower {split} ({len({row['floor'] for row in chosen})} floors)",
        paths=paths,
        places=tuple(np.array(clip, dtype=np.int64) for clip in clips.values()),
    )


def labelled(root: Path) -> Places:
    """Frames with a ``poses.csv`` beside them whose ``place`` column says what shows the same.

    Raises:
        DataError: the list or a file of it is missing, or no place has two frames.
    """
    rows = read_rows(root / "poses.csv", ("name", "place"))
    paths = tuple(root / row["name"] for row in rows)
    _exist(paths)
    return group(str(root.name), paths, [row["place"] for row in rows])


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


def open_source(source: DataConfig) -> Places:
    """The places that one ``[[data]]`` table of a training file names.

    Raises:
        DataError: unknown format, or data that its reader refuses.
    """
    root = Path(source.root)
    if source.format == "tower":
        rows = read_rows(root / "frames.csv", ("split", "floor"))
        floors = {row["floor"] for row in rows if row["split"] == source.split}
        unknown = sorted(set(source.leave_out) - floors)
        if unknown:
            raise DataError(f"{root / 'frames.csv'}: no floor {unknown[0]!r} to leave out")
        return tower(root, source.split, floors - set(source.leave_out))
    if source.format == "labelled":
        return labelled(root)
    raise DataError(f"unknown data format {source.format!r}: known are tower, labelled")
