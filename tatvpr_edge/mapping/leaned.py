"""``map lean``: places of a map that was driven come to know their neighbours.

What ``Localizer.add`` and ``MapWriter`` store is a place alone, because the one behind it is not
known yet (``mapping.neighbours``). Once the drives are over both are, and what is stored is enough:
no frame is needed again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping.build import check_new
from tatvpr_edge.mapping.neighbours import beside, lent, linked
from tatvpr_edge.mapping.poses import Poses
from tatvpr_edge.runtime.mapjournal import StoredMap, read_map, rewrite
from tatvpr_edge.runtime.pruning import along_drives
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import F32, MapInfo, Places, Rows, calibrated, stored_rows
from tatvpr_edge.spec.placemap import write_map
from tatvpr_edge.spec.values import path as check_path


@dataclass(frozen=True)
class Leaned:
    """What became of a map.

    Attributes:
        places: how many it holds.
        neighbours: those of them that keep a part of a neighbour's descriptor now.
        uncalibrated: it was calibrated, by scores that its places no longer give.
    """

    places: int
    neighbours: int
    uncalibrated: bool


def lean_map(path: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Leaned:
    """Have the places of the int8 map at ``path`` keep parts of their neighbours along each drive,
    as ``build_map`` does; its journal is folded in, and the map replaced as a whole or not at all.

    A place without neighbours stays as it is, byte for byte.

    Args:
        output: a new map to write in its stead. The one at ``path`` stays as it is, so that it can
            be driven on and leaned as a whole again.

    Raises:
        MapError: its places have neighbours already, or say too little, or ``output`` stands or
            cannot be written; nothing changed.
    """
    source = check_path(path, "map", "a .placemap")
    if output is not None:
        target = check_new(output, "give another --output")
        stored = read_map(source)
        done, info, places = _leaned(source, stored.base.info, stored.places())
        write_map(target, info, [places], new=True)
        return done
    known: list[Leaned] = []

    def change(stored: StoredMap) -> tuple[MapInfo, Sequence[Places]]:
        done, info, places = _leaned(source, stored.base.info, stored.base.places())
        known.append(done)
        return info, [places]

    rewrite(source, change)
    return known[0]


def _leaned(path: Path, info: MapInfo, places: Places) -> tuple[Leaned, MapInfo, Places]:
    """What becomes of the places of the map at ``path``."""
    if info.neighbours:
        raise MapError(
            f"places of {path} keep parts of their neighbours already: a second time would blur "
            "them (with --output, a map stays as it was driven, and is leaned again when it grew)"
        )
    if info.kind != "int8":
        raise MapError(
            f"{path} holds signs alone, which a part of a neighbour does not change: build it "
            "from its frames (map build), or drive an int8 map"
        )
    order = along_drives(places)
    here = _following(info, places, order)
    rows = []
    for band, stored_row in zip(info.bands, places.rows, strict=True):
        unit = np.empty((len(order), info.dim), np.float32)
        unit[order] = lent(_directions(stored_row)[order], here)
        rows.append(stored_rows(info, band, unit))
    neighbours = beside(here)
    was = any(band.calibration is not None for band in info.bands)
    if neighbours:
        info = replace(calibrated(info, [None] * len(info.bands)), neighbours=True)
    done = Leaned(len(order), neighbours, was and neighbours > 0)
    return done, info, replace(places, rows=tuple(rows))


def _following(info: MapInfo, places: Places, order: np.ndarray) -> np.ndarray:
    """Whether each place but the first, in ``order``, is the neighbour of the one before it."""
    moments = places.moments[order]
    seen_us = moments["time_us"]
    return linked(
        [f"drive {drive}" for drive in moments["drive"]],
        Poses(places.poses[order], info.pose_frame, "map"),
        _directions(places.rows[0])[order],
        np.zeros(len(order), np.bool_),
        [None if at == 0 else at / 1e6 for at in seen_us.tolist()],
        remedy="give each a writer of its own",
    )


def _directions(rows: Rows) -> F32:
    """Stored int8 descriptors as float32 [N, D] of unit length."""
    assert rows.norms is not None
    return rows.data * rows.norms[:, None]
