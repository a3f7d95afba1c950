"""Several place maps become one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping.build import check_new
from tatvpr_edge.runtime.growing import contents, taken
from tatvpr_edge.runtime.mapjournal import StoredMap, read_map
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.maptypes import MAX_DRIVES, Band, MapInfo, Places
from tatvpr_edge.spec.placemap import write_map
from tatvpr_edge.spec.targets import same_file
from tatvpr_edge.spec.values import path as check_path

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Merged:
    """What was made.

    Attributes:
        path: of the map.
        places: how many it holds.
        drives: how many drives they come from.
        uncalibrated: whether a calibration was left behind, because the maps were not all judged
            by the same one.
        shared: how many places stood in a map before as well, and are kept once.
    """

    path: Path
    places: int
    drives: int
    uncalibrated: bool
    shared: int = 0


def merge_maps(maps: Sequence[PathLike], output: PathLike, *, same_frame: bool = False) -> Merged:
    """Write the places of ``maps``, one map after another, as one map; they stay as they are.

    Tags, poses, times and confirmations are kept; each map's drives get numbers of their own. A
    place that several maps have, as copies of one map do, is kept once, and their drive is one. A
    calibration that all maps share is kept as well; otherwise the new map has none.

    Args:
        maps: two or more, of one model, kind, bands and pose frame; their journals are read too.
        output: the ``.placemap`` to write; it must not exist.
        same_frame: local positions have the same origin and axes in all of them. Without it,
            local maps with positions are refused: one robot's (0, 0) is seldom another's.

    Raises:
        UsageError: fewer than two maps, or one of them twice.
        MapError: a map is damaged, or does not go with the first, or ``output`` stands.
    """
    if not isinstance(maps, (list, tuple)) or len(maps) < 2:
        raise UsageError("give two or more maps to merge")
    target = check_new(output, "give another --output")
    paths = [check_path(path, "map", "a .placemap") for path in maps]
    for number, path in enumerate(paths):
        if any(same_file(path, other) for other in paths[:number]):
            raise UsageError(f"map {path} is given twice: its places would be, too")
    opened = [read_map(path) for path in paths]
    first = opened[0].base.info
    for path, stored in zip(paths[1:], opened[1:], strict=True):
        _check_goes_with(paths[0], first, path, stored.base.info)
    if first.pose_frame == "local" and not same_frame:
        _refuse_other_origins(paths, opened)
    info, uncalibrated = _shared(first, [stored.base.info for stored in opened])
    parts: list[Places] = []
    known: dict[bytes, tuple[np.ndarray, int]] = {}  # moments that are kept, and which of them
    drives = shared = 0
    for path, stored in zip(paths, opened, strict=True):
        places = stored.places()
        places = replace(places, moments=places.moments.copy())
        marks = _marks(places)
        numbers: dict[int, int] = {}
        for place, mark in enumerate(marks):
            if mark in known:
                there, at = known[mark]
                seen = max(there["confirmed"][at], places.moments["confirmed"][place])
                there["confirmed"][at] = seen
                numbers.setdefault(int(places.moments["drive"][place]), int(there["drive"][at]))
        own = [place for place, mark in enumerate(marks) if mark not in known]
        shared += len(marks) - len(own)
        places = taken(places, np.array(own, np.int64))
        for drive in np.unique(places.moments["drive"]).tolist():
            if numbers.setdefault(drive, drives) == drives:
                drives += 1
        if drives > MAX_DRIVES:
            raise MapError(f"map {path} brings more drives than a map may have ({MAX_DRIVES})")
        moments = places.moments
        moments["drive"] = [numbers[drive] for drive in moments["drive"].tolist()]
        known |= {marks[place]: (moments, at) for at, place in enumerate(own)}
        parts.append(places)
    write_map(target, info, parts, new=True)
    return Merged(target, sum(map(len, parts)), drives, uncalibrated, shared)


def _marks(places: Places) -> list[bytes]:
    """What two maps have of a place that both took from one: all but the number of its drive, which
    merging changes, and how often it was confirmed since."""
    moments = places.moments.copy()
    moments["drive"] = moments["confirmed"] = 0
    held = contents(places)
    return [moment.tobytes() + holds for moment, holds in zip(moments, held, strict=True)]


def _check_goes_with(path: Path, info: MapInfo, other_path: Path, other: MapInfo) -> None:
    remedy = "make one of them again"
    for name, mine, theirs in (
        ("model", info.model_hash[:12], other.model_hash[:12]),
        ("kind", info.kind, other.kind),
        ("descriptor size", (info.dim, info.descriptor_size), (other.dim, other.descriptor_size)),
        ("bands", _bands(info), _bands(other)),
        ("pose frame", info.pose_frame, other.pose_frame),
    ):
        if mine != theirs:
            raise MapError(
                f"maps {path} and {other_path} differ in their {name} ({_said(mine)} and "
                f"{_said(theirs)}): {remedy}"
            )
    if [band.mean for band in info.bands] != [band.mean for band in other.bands]:
        raise MapError(f"maps {path} and {other_path} have other means of their signs: {remedy}")


def _bands(info: MapInfo) -> list[str]:
    return [f"k={band.k:g} tokens={band.tokens:g}" for band in info.bands]


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _refuse_other_origins(paths: Sequence[Path], opened: Sequence[StoredMap]) -> None:
    placed = [
        path
        for path, stored in zip(paths, opened, strict=True)
        if not np.isnan(np.concatenate([stored.base.poses, stored.added.poses])[:, :2]).all()
    ]
    if len(placed) > 1:
        raise MapError(
            f"maps {placed[0]} and {placed[1]} have local positions: say --same-frame if these "
            "have one origin, else bring them into one frame (utm, geographic) first"
        )


def _shared(first: MapInfo, every: Sequence[MapInfo]) -> tuple[MapInfo, bool]:
    """The first map's head with the calibrations that all share, and whether one was lost."""
    bands: list[Band] = []
    lost = False
    for number, band in enumerate(first.bands):
        theirs = [info.bands[number].calibration for info in every]
        same = all(found == band.calibration for found in theirs)
        lost = lost or not same
        bands.append(band if same else replace(band, calibration=None))
    neighbours = any(info.neighbours for info in every)
    return replace(first, bands=tuple(bands), neighbours=neighbours), lost
