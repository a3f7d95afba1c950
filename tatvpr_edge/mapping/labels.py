"""Which frames show the same place, where a table beside them says so."""

from __future__ import annotations

import os
from pathlib import Path

from tatvpr_edge.mapping.files import FrameFile, frame_files
from tatvpr_edge.mapping.poses import POSES, read_poses
from tatvpr_edge.spec.errors import DataError


def labelled_frames(folder: str | Path) -> tuple[list[FrameFile], list[str]]:
    """The frames that ``poses.csv`` in ``folder`` lists, in its order, and each one's place.

    Raises:
        DataError: no such table, no column ``place``, or a row that names no file or no place.
    """
    found, file = frame_files(folder), Path(folder) / POSES
    if not os.path.lexists(file):
        raise DataError(
            f"{folder} does not say which frames show one place: put a {POSES} with name, place "
            "beside them"
        )
    table = read_poses(file, ("place",))
    frames, rows = table.paired(found)
    labels = [table.table.rows[row]["place"].strip() for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if not label:  # frames that nobody labelled do not show one place
            raise DataError(
                f"{table.table.where(row)}: names no place: write one, or remove the line"
            )
    return frames, labels
