"""Place maps from folders of frames: made, and extended."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping.describe import Band, Described, Skipped, Step, describe_frames
from tatvpr_edge.mapping.files import FrameFile, drives_of
from tatvpr_edge.mapping.neighbours import Bools, beside, leaning, lent
from tatvpr_edge.mapping.poses import Poses, find_poses
from tatvpr_edge.mapping.recordings.frames import RecordedFrame
from tatvpr_edge.mapping.recordings.opening import frames_of
from tatvpr_edge.mapping.recordings.picking import Picking
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.growing import contents, standing, taken
from tatvpr_edge.runtime.mapjournal import append_drive, check_free, read_map
from tatvpr_edge.spec import placemap
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
from tatvpr_edge.spec.limits import check_bands
from tatvpr_edge.spec.maptypes import MAX_DRIVES, POSE_FRAMES
from tatvpr_edge.spec.placemap import MapInfo, Places, check_info, make_places, write_map
from tatvpr_edge.spec.targets import check_target
from tatvpr_edge.spec.values import between, choice, instance, wrong
from tatvpr_edge.spec.values import path as check_path

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class BuiltMap:
    """What was made.

    Attributes:
        path: of the map.
        places: how many were written in this call.
        pose_frame: "local", "utm" or "geographic".
        poses_from: the table's path, a recording's topic, "names" or "none".
        skipped: frames that could not be read or show nothing, with the reason.
        unplaced: places of unknown position, where others of this call have one.
        neighbours: places of these frames that keep a part of a neighbour's descriptor, along a
            drive.
        known: frames whose very place (descriptors, position, name) the map had already.
    """

    path: Path
    places: int
    pose_frame: str
    poses_from: str
    skipped: tuple[Skipped, ...]
    unplaced: int = 0
    neighbours: int = 0
    known: int = 0


def build_map(
    localizer: Localizer,
    frames: PathLike | Sequence[FrameFile],
    output: PathLike,
    *,
    poses: PathLike | None = None,
    pose_frame: str | None = None,
    kind: str = "int8",
    bands: Sequence[Band] | None = None,
    threshold: float | None = None,
    strict: bool = False,
    picking: Picking | None = None,
    views: bool = True,
    one_drive: bool = False,
    progress: Step | None = None,
) -> BuiltMap:
    """Make a map of a folder of frames, or of a recording; its places are tagged with the frames'
    names. Arguments are those of :func:`tatvpr_edge.build_map`.

    Raises:
        DataError: frames, names or poses that cannot be used.
        MapError: ``output`` exists or cannot be written.
    """
    instance(localizer, Localizer, "localizer", "a Localizer, which describes the frames")
    target = check_new(output)
    pairs = check_bands(bands, localizer.artifact.manifest.k_range)
    if threshold is not None:
        between(threshold, -1, 1, "threshold", "a score from -1 to 1")
    files, found = frames_and_poses(frames, poses, pose_frame, picking)
    _check_drives(drives_of(files, one_drive), 0)
    model = localizer.artifact.manifest.model
    info = MapInfo(
        model_hash=model.hash,
        kind=kind,
        dim=model.descriptor_size,
        bands=tuple(placemap.Band.accepting(k, tokens, threshold) for k, tokens in pairs),
        pose_frame=found.frame,
    )
    check_info(info)
    described = describe_frames(
        localizer, files, pairs, progress, strict, as_places=True, views=views
    )
    linked = np.zeros(max(len(described.kept) - 1, 0), np.bool_)
    if views:
        described, linked = leaning(described, files, found, one_drive)
    info = replace(info, neighbours=bool(linked.any()))
    write_map(target, info, [_places(info, described, files, found, one_drive)], new=True)
    return _built(target, described, found, linked)


def check_new(output: PathLike, otherwise: str = "extend it with 'map add'") -> Path:
    """``output`` as the path of a map that can be written.

    Args:
        otherwise: than to remove what lies there.

    Raises:
        MapError: it exists, or the journal of a map that did, or its folder takes no file.
    """
    target = check_path(output, "output", "the .placemap to write")
    check_free(target, otherwise)
    check_target(target, error=MapError)
    return target


def extend_map(
    localizer: Localizer,
    frames: PathLike | Sequence[FrameFile],
    path: PathLike,
    *,
    poses: PathLike | None = None,
    pose_frame: str | None = None,
    strict: bool = False,
    picking: Picking | None = None,
    views: bool = True,
    one_drive: bool = False,
    progress: Step | None = None,
) -> BuiltMap:
    """Add a folder of frames to a map: all that can be used or, on any failure, none. What the map
    has of them already, as after a call that was cut once it had added them, is not added again.

    Args: as :func:`build_map`.

    Raises:
        DataError: frames, names or poses that cannot be used.
        MapError: the map is damaged, of another model, of another pose frame, or not writable.
    """
    instance(localizer, Localizer, "localizer", "a Localizer, which describes the frames")
    target = check_path(path, "map", "a .placemap")
    place_map = PlaceMap(target, localizer.artifact.manifest.model)
    info = place_map.info
    files, found = frames_and_poses(frames, poses, pose_frame, picking)
    stored = place_map.stored
    held = [of["drive"] for of in (stored.base.moments, stored.added.moments) if len(of)]
    numbered = max((1 + int(numbers.max()) for numbers in held), default=0)
    _check_drives(drives_of(files, one_drive), numbered)
    if found.source != "none" and found.frame != info.pose_frame:
        raise MapError(
            f"the map's positions are {info.pose_frame}, those of the frames are {found.frame}: "
            "they cannot be in one map"
        )
    bands = [(band.k, band.tokens) for band in info.bands]
    described = describe_frames(
        localizer, files, bands, progress, strict, as_places=True, views=views
    )
    alone, linked = described, np.zeros(max(len(described.kept) - 1, 0), np.bool_)
    if views:
        described, linked = leaning(described, files, found, one_drive)
    places = _places(info, described, files, found, one_drive)
    # As the map stands now: describing took its time.
    stored = read_map(target)
    there = standing([stored.base.places(), stored.added], set(places.tags))
    new = np.array([holds not in there for holds in contents(places)], np.bool_)
    if there and linked.any():  # a place at an end of what stands kept nothing of what came since
        none = np.zeros_like(linked)
        for before, behind in ((linked, none), (none, linked), (none, none)):
            rows = [lent(part, before, behind) for part in alone.descriptors]
            ends = _places(info, replace(alone, descriptors=rows), files, found, one_drive)
            new &= [holds not in there for holds in contents(ends)]
    if new.any():
        places = taken(places, np.flatnonzero(new))
        drives = np.unique(places.moments["drive"], return_inverse=True)[1]  # no number unused
        places.moments["drive"] = drives
        append_drive(target, places, neighbours=bool(linked.any()), made_for=info)
    return _built(target, described, found, linked, int((~new).sum()))


def frames_and_poses(
    frames: PathLike | Sequence[FrameFile],
    table: PathLike | None,
    pose_frame: str | None,
    picking: Picking | None = None,
) -> tuple[list[FrameFile], Poses]:
    """Everything that can be wrong with names and tables is told before the first frame is read."""
    if pose_frame is not None:
        choice(pose_frame, POSE_FRAMES, "pose frame")
    if picking is not None:
        instance(picking, Picking, "picking", "tatvpr_edge.mapping.Picking(...), or None")
    if table is not None and picking is not None and picking.poses_topic is not None:
        raise UsageError("poses come from a table or from a topic: give one of the two")
    given = None if table is None else check_path(table, "poses", "a CSV file")
    files = frames_given(frames, picking)
    return files, find_poses(folder_of(files), files, given, pose_frame)


def frames_given(
    frames: PathLike | Sequence[FrameFile], picking: Picking | None = None
) -> list[FrameFile]:
    """The frames of a folder or recording, or those that were found in one."""
    if isinstance(frames, str | os.PathLike):
        return frames_of(os.fspath(frames), picking)
    meaning = "a folder, a recording, or frames of tatvpr_edge.mapping.frame_files"
    try:
        files = [instance(frame, FrameFile, "frames", meaning) for frame in frames]
    except TypeError:
        raise wrong(frames, "frames", meaning) from None
    if not files:
        raise DataError("there are no frames to describe: an empty list was given")
    return files


def folder_of(files: Sequence[FrameFile]) -> Path:
    """The folder, or the recording, that ``files`` were found in."""
    return files[0].path.parents[len(Path(files[0].name).parts) - 1]


def _places(
    info: MapInfo,
    described: Described,
    files: Sequence[FrameFile],
    found: Poses,
    one_drive: bool,
) -> Places:
    kept = [files[index] for index in described.kept]
    poses = found.values[described.kept]
    seen_s = [frame.time_s if isinstance(frame, RecordedFrame) else None for frame in kept]
    times = [math.nan if seen is None else seen for seen in seen_s]
    tags = [frame.name for frame in kept]
    drives, orders = _drives(drives_of(kept, one_drive))
    return make_places(
        info, described.descriptors, poses, tags, times=times, orders=orders, drives=drives
    )


def _check_drives(drives: Sequence[str], taken: int) -> None:
    """Refuse more folders than a map has numbers for, of which so many are ``taken``, before hours
    of describing."""
    folders = len(set(drives))
    if folders > MAX_DRIVES - taken:
        raise DataError(
            f"the frames are of {folders} drives (every folder is one, but with --one-drive), and "
            f"the map has numbers for {MAX_DRIVES - taken} more: put them into fewer folders, or "
            "into another map"
        )


def _drives(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """The number of each frame's drive, and its own along it."""
    numbers: dict[str, int] = {}
    passed: dict[str, int] = {}
    drives, orders = [], []
    for name in names:
        drives.append(numbers.setdefault(name, len(numbers)))
        orders.append(passed.get(name, 0))
        passed[name] = orders[-1] + 1
    return drives, orders


def _built(
    path: Path, described: Described, found: Poses, linked: Bools, known: int = 0
) -> BuiltMap:
    places = len(described.kept) - known
    unknown = int(np.isnan(found.values[described.kept, 0]).sum())
    unplaced = 0 if found.source == "none" else unknown
    return BuiltMap(
        path,
        places,
        found.frame,
        found.source,
        described.skipped,
        unplaced,
        beside(linked),
        known,
    )
