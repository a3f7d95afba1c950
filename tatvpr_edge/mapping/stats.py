"""What a map's places are: how many drives, how far apart, how redundant."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from tatvpr_edge.mapping.coordinates import metres_between, to_metres
from tatvpr_edge.runtime.mapjournal import map_bytes, read_map
from tatvpr_edge.runtime.pruning import along_drives, neighbour_scores, redundant_score
from tatvpr_edge.spec.maptypes import F64, MapInfo, Places
from tatvpr_edge.spec.values import path as check_path


@dataclass(frozen=True)
class MapStats:
    """Figures of a map; None where its places do not say.

    Attributes:
        places, drives, confirmed, positions: how many places; drives that they come from; places
            that were confirmed; places whose position is known.
        bytes, bytes_a_place: of its file and journal.
        first_s, last_s: when its oldest and newest place was seen, in seconds since 1970.
        width_m, height_m: from the westernmost to the easternmost place, and likewise north.
        step_m: metres from a place to the next along its drive, the median.
        step_score: how alike these two are, the median.
        redundant: share of these that are more alike than a cosine of 0.9 (0.96 in maps whose
            places keep parts of their neighbours).
    """

    places: int
    drives: int
    confirmed: int
    positions: int
    bytes: int
    bytes_a_place: float | None
    first_s: float | None
    last_s: float | None
    width_m: float | None
    height_m: float | None
    step_m: float | None
    step_score: float | None
    redundant: float | None


def map_stats(path: str | os.PathLike[str]) -> MapStats:
    """Figures of the map at ``path`` and its journal.

    Raises:
        MapError: it is damaged.
    """
    path = check_path(path, "map", "a .placemap")
    stored = read_map(path)
    info, places = stored.base.info, stored.places()
    count, size = len(places), map_bytes(path)
    moments = places.moments
    times = moments["time_us"][moments["time_us"] > 0] / 1e6
    known = ~np.isnan(places.poses[:, :2]).any(axis=1)
    width, height = None, None
    if known.any():
        metres = to_metres(places.poses[known, :2], info.pose_frame)
        width, height = np.ptp(metres, axis=0).tolist()
    apart, likeness = _steps(info, places)
    redundant = redundant_score(info)
    return MapStats(
        places=count,
        drives=len(np.unique(moments["drive"])),
        confirmed=int((moments["confirmed"] > 0).sum()),
        positions=int(known.sum()),
        bytes=size,
        bytes_a_place=size / count if count else None,
        first_s=float(times.min()) if len(times) else None,
        last_s=float(times.max()) if len(times) else None,
        width_m=width,
        height_m=height,
        step_m=float(np.median(apart)) if len(apart) else None,
        step_score=float(np.median(likeness)) if len(likeness) else None,
        redundant=float((likeness > redundant).mean()) if len(likeness) else None,
    )


def _steps(info: MapInfo, places: Places) -> tuple[F64, F64]:
    """Metres (where known) and score from each place to the next along its drive."""
    order = along_drives(places)
    drives = places.moments["drive"][order]
    same = drives[1:] == drives[:-1]
    here, there = order[:-1][same], order[1:][same]
    likeness = neighbour_scores(info, places, here, there)
    at = places.poses[:, :2]
    apart = metres_between(at[here], at[there], info.pose_frame)
    return apart[~np.isnan(apart)], likeness.astype(np.float64)
