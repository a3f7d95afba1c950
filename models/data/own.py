"""Frames of a user's own, divided into what a fine-tuning learns and what it is judged by.

What shows the same place is told by labels (a column ``place`` in ``poses.csv``), by positions, or,
where nothing is said, by the order in time: neighbouring frames of a folder. Later places are held
out; with an order alone, later folders, or the end of each where there are few.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping import FrameFile, Skipped, find_poses, frame_files, is_recording, open_rgb
from tatvpr_edge.mapping.coordinates import metres_apart
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.mapping.poses import POSES, read_poses
from tatvpr_edge.models.data.formats import Positioned, cells, group
from tatvpr_edge.models.data.frames import digest_of
from tatvpr_edge.models.data.places import Bools, ClipPlaces, Indices, Places
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.workers import in_order

#: Which frames of the map are right answers: ``(queries, gallery) -> bool [Q, G]``.
Right = Callable[[Indices, Indices], Bools]

#: Every n-th of the frames held out is in the map; the others ask.
GALLERY_EVERY = 4
#: Fewest places to learn from, and to be judged by.
FEWEST_TRAINED, FEWEST_HELD = 4, 2
#: From so many folders on, whole folders are held out.
_MANY_CLIPS = 4


@dataclass(frozen=True)
class Held:
    """What a model is judged by: frames that training does not see.

    Attributes:
        gallery, queries: frames of the map, and those that are asked for.
        right: bool [queries, gallery].
        places: how many places they show.
    """

    gallery: tuple[FrameFile, ...]
    queries: tuple[FrameFile, ...]
    right: Bools
    places: int


@dataclass(frozen=True)
class OwnFrames:
    """A folder, divided.

    Attributes:
        by: what said which frames show one place: "labels", "poses" or "time".
        places: those to learn from, and no other frames.
        trained: how many places that are (windows of frames, where time says it).
        trained_frames: how many frames these have.
        held: what is judged by.
        skipped: frames that cannot be read.
    """

    by: str
    places: Places
    trained: int
    trained_frames: int
    held: Held
    skipped: tuple[Skipped, ...]

    @cached_property
    def copies(self) -> int:
        """Frames held out that are, byte for byte, a frame to learn from as well."""
        learned = {path.resolve() for path in self.places.paths}
        held = [frame.path for frame in (*self.held.gallery, *self.held.queries)]
        sizes = {path.stat().st_size for path in held}
        alike = {_contents(path) for path in learned if path.stat().st_size in sizes}
        if not alike:
            return 0
        sizes = {path.stat().st_size for path in learned}
        return sum(path.stat().st_size in sizes and _contents(path) in alike for path in held)

    def digest(self) -> str:
        """Changes with every frame that is used, and with what they are used for."""
        held = [frame.path for frame in (*self.held.gallery, *self.held.queries)]
        division = (*self.places.places, np.array(self.held.right.shape), self.held.right)
        said = b"".join(hashlib.sha256(part.tobytes()).digest() for part in division)
        return digest_of([*self.places.paths, *held], said)


def _contents(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@dataclass(frozen=True)
class Division:
    """How a folder is divided.

    Attributes:
        by: "labels", "poses" or "time"; "" for the first of them that the folder says.
        held_out: share of the places (of the frames, by time) that training does not see.
        within_m: by poses: side of the cells that are places, and how near an answer must lie.
        every: by time: every n-th frame alone is looked at (a video's frames are too many).
        window: by time: neighbouring frames that show one place.
        gap: by time: frames between two places that belong to neither.
        pose_frame: what positions are, where the user says so.
        strict: a frame that cannot be read is an error.
    """

    by: str = ""
    held_out: float = 0.25
    within_m: float = 10.0
    every: int = 1
    window: int = 4
    gap: int = 3
    pose_frame: str | None = None
    strict: bool = False


def read_own(folder: Path, division: Division) -> OwnFrames:
    """The frames below ``folder``, divided.

    Raises:
        DataError: no frames, too few of them or of places, poses that cannot be used, or
            (``strict``) a frame that cannot be read.
    """
    if is_recording(folder):
        raise DataError(
            f"{folder} is a recording, and training takes pictures: write its frames to a folder "
            "first (docs/training.md has the lines)"
        )
    by = division.by or _what_is_said(folder)
    if by == "labels":
        frames, labels = labelled_frames(folder)
        kept, skipped = _readable(frames, division.strict)
        places = group(str(folder), _paths(frames), labels)
        return _by_group(by, _only(places, kept), frames, _told_by(labels), division, skipped)
    frames = frame_files(folder)
    if by == "time":
        frames = _thinned(frames, division.every)
        kept, skipped = _readable(frames, division.strict)
        return _by_time([frames[i] for i in kept], division, skipped)
    poses = find_poses(folder, frames, pose_frame=division.pose_frame)
    if poses.source == "none":
        raise DataError(
            f"{folder} does not say where its frames were taken: put a poses.csv with name, x, y "
            "beside them, or say --by time"
        )
    poses.require_all(frames)
    kept, skipped = _readable(frames, division.strict)
    positioned = Positioned(_paths(frames), poses.positions, poses.frame, poses.values)
    places = _only(cells(str(folder), positioned, division.within_m), kept)

    def near(queries: Indices, gallery: Indices) -> Bools:
        at = poses.values[:, :3]
        return metres_apart(at[queries], at[gallery], poses.frame) <= division.within_m

    return _by_group(by, places, frames, near, division, skipped)


def _what_is_said(folder: Path) -> str:
    table = folder / POSES
    if table.is_file():
        rows = read_poses(table).table.rows
        return "labels" if any(row.get("place") for row in rows) else "poses"
    return "time" if find_poses(folder, frame_files(folder)).source == "none" else "poses"


def _paths(frames: list[FrameFile]) -> tuple[Path, ...]:
    return tuple(frame.path for frame in frames)


def _thinned(frames: list[FrameFile], every: int) -> list[FrameFile]:
    """Every n-th frame of each folder."""
    return [frame for clip in _clips(frames) for frame in clip[::every]]


def _clips(frames: list[FrameFile]) -> list[list[FrameFile]]:
    clips: dict[str, list[FrameFile]] = {}
    for frame in frames:
        clips.setdefault(frame.name.rpartition("/")[0], []).append(frame)
    return list(clips.values())


def _readable(frames: list[FrameFile], strict: bool) -> tuple[list[int], tuple[Skipped, ...]]:
    """Numbers of the frames that can be read, and the others by name."""

    def fault(frame: FrameFile) -> DataError | None:
        try:
            open_rgb(frame.path)
        except DataError as error:
            return error
        return None

    faults = list(in_order(fault, frames, os.cpu_count() or 1))
    for error in faults:
        if error is not None and strict:
            raise error
    kept = [i for i, error in enumerate(faults) if error is None]
    if not kept:
        raise DataError(f"not one of {len(frames)} frames can be read: {faults[0]}")
    return kept, tuple(
        Skipped(frame.name, str(error))
        for frame, error in zip(frames, faults, strict=True)
        if error is not None
    )


# ---- places that a table tells ---------------------------------------------------------------


def _told_by(labels: list[str]) -> Right:
    names = np.array(labels)

    def same(queries: Indices, gallery: Indices) -> Bools:
        return np.asarray(names[queries, None] == names[gallery])

    return same


def _only(places: Places, kept: list[int]) -> Places:
    """``places`` without frames that are not ``kept``; those with fewer than two are left out."""
    good = np.zeros(len(places), np.bool_)
    good[kept] = True
    left = tuple(members[good[members]] for members in places.places)
    return replace(places, places=tuple(members for members in left if len(members) > 1))


def _by_group(
    by: str,
    places: Places,
    frames: list[FrameFile],
    right: Right,
    division: Division,
    skipped: tuple[Skipped, ...],
) -> OwnFrames:
    ordered = sorted(places.places, key=lambda members: int(members[0]))
    count = max(FEWEST_HELD, round(division.held_out * len(ordered)))
    learned, held = ordered[: len(ordered) - count], ordered[len(ordered) - count :]
    if by == "poses":
        learned = _far(learned, held, right)
    if len(learned) < FEWEST_TRAINED:
        smaller = " (--within says how large one is)" if by == "poses" else ""
        raise DataError(
            f"{places.name}: {_count(len(ordered), 'place')} with two frames or more by {by}"
            f"{smaller}, {len(learned)} of them beside those held out; {FEWEST_TRAINED} to learn "
            f"from and {FEWEST_HELD} to be judged by are needed: give frames of more places, or "
            "say --by time"
        )
    if by == "labels":
        # Views of a place differ as they are: the first of each is the map.
        gallery = np.array([members[0] for members in held])
    else:
        gallery = np.sort(np.concatenate(held))[::GALLERY_EVERY]
    queries = np.setdiff1d(np.concatenate(held), gallery)
    seen = replace(places, places=tuple(learned)).alone()
    judged = _held(frames, gallery, queries, right(queries, gallery), len(held))
    return OwnFrames(by, seen, seen.fewest, len(seen), judged, skipped)


def _far(learned: list[Indices], held: list[Indices], right: Right) -> list[Indices]:
    """Without frames that would be a right answer to one held out: the second lap of a street may
    lie on the other side of the line between two cells."""
    judged = np.concatenate(held) if held else np.zeros(0, np.int64)
    left = [members[~right(members, judged).any(axis=1)] for members in learned]
    return [members for members in left if len(members) > 1]


# ---- places that time tells ------------------------------------------------------------------


def _by_time(
    frames: list[FrameFile], division: Division, skipped: tuple[Skipped, ...]
) -> OwnFrames:
    clips: list[Indices] = []
    for files in _clips(frames):
        first = sum(map(len, clips))
        clips.append(np.arange(first, first + len(files)))
    learned, held = _divided(clips, division)
    stride = division.window + division.gap
    # Drives in folders beside each other may pass the same places; a folder above parts them.
    folders = [str(Path(frames[int(clip[0])].name).parent.parent) for clip in learned]
    places = ClipPlaces(
        name="frames in time order",
        paths=_paths(frames),
        places=tuple(learned),
        territories=tuple(folders),
        window=division.window,
        gap=division.gap,
    )
    windows = places.fewest
    asked = sum(max(1, len(clip) // stride) for clip in held)
    if windows < FEWEST_TRAINED or asked < FEWEST_HELD:
        needed = round((FEWEST_HELD + 1) * stride / division.held_out)
        raise DataError(
            f"{_count(len(frames), 'frame')} in time order are too few: {windows} places to learn "
            f"from and {asked} to be judged by, of {FEWEST_TRAINED} and {FEWEST_HELD} that are "
            f"needed; give about {needed} frames or more (in one folder for each drive)"
        )
    of, position = np.zeros(len(frames), np.int64), np.zeros(len(frames), np.int64)
    for number, clip in enumerate(held):
        of[clip], position[clip] = number, np.arange(len(clip))
    gallery = np.concatenate([clip[::GALLERY_EVERY] for clip in held])
    queries = np.setdiff1d(np.concatenate(held), gallery)
    apart = np.abs(position[queries, None] - position[gallery])
    right = (of[queries, None] == of[gallery]) & (apart < division.window)
    judged = _held(frames, gallery, queries, np.asarray(right), asked)
    seen = places.alone()
    return OwnFrames("time", seen, windows, len(seen), judged, skipped)


def _divided(clips: list[Indices], division: Division) -> tuple[list[Indices], list[Indices]]:
    """Clips to learn from and clips held out, with frames between where both are of one."""
    total = sum(map(len, clips))
    if len(clips) >= _MANY_CLIPS:
        held: list[Indices] = []
        while sum(map(len, held)) < division.held_out * total and len(clips) > len(held) + 1:
            held.insert(0, clips[-1 - len(held)])
        return clips[: len(clips) - len(held)], held
    learned, held = [], []
    for clip in clips:
        cut = round(len(clip) * (1 - division.held_out))
        learned.append(clip[:cut])
        held.append(clip[cut + division.window + division.gap :])
    return [c for c in learned if len(c) > 1], [c for c in held if len(c) > 1]


# ---- the part that judges --------------------------------------------------------------------


def _held(
    frames: list[FrameFile], gallery: Indices, queries: Indices, right: Bools, places: int
) -> Held:
    if not right.any():
        raise DataError(
            f"none of {len(queries)} frames held out lies near another one, so nothing can be "
            "judged: give more frames of each place, or a larger --within"
        )
    return Held(tuple(frames[i] for i in gallery), tuple(frames[i] for i in queries), right, places)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
