"""Places along a drive lend their neighbours a part of what they show.

What a robot sees between two places of a map is seen from both, while a wall elsewhere that looks
like one of them seldom stands beside one that looks like the other. So each place that is described
from several views (``runtime.views``) keeps a part of the descriptors of the place before and of
the one behind it on its drive. A map is no larger for it, and a query no slower.

In: descriptors of places in their order, and where they lie. Out: what a map keeps of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.coordinates import WITHIN_M, metres_in_space
from tatvpr_edge.mapping.describe import Described
from tatvpr_edge.mapping.files import FrameFile, drives_of
from tatvpr_edge.mapping.poses import Poses
from tatvpr_edge.mapping.recordings.frames import RecordedFrame
from tatvpr_edge.mapping.recordings.track import LONGEST_GAP_S
from tatvpr_edge.spec.text import printable

_LOG = logging.getLogger("tatvpr_edge")

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: How much of a neighbour's descriptor a place keeps, of its own. Chosen on training floors and
#: rendered drives (docs/training-log.md).
PART = 0.3
#: Neighbours lie within so many times what counts as right, on either side of whoever asks.
NEAR = 2
#: And look the same way but for so many degrees, where both orientations are known.
TURNED_DEG = 60
#: Pictures without positions are a drive where the next one is more alike than the one so many
#: further, by so many standard deviations of what any two have in common. Drives have 0.8 and more,
#: places in no order at most 0.4 (docs/training-log.md).
_FURTHER, _DECAY = 4, 0.7
#: And so many times what chance brings of that; fewer pictures say nothing.
_SURE, _FEWEST = 3, 16
#: Known positions follow an order where from so many of the places the next one is nearer than any
#: two are in the middle. On drives that is from all of them, in no order from half, and from .76
#: where names are sorted by their easting.
_NEARER = 0.7
#: So many cameras may take turns.
_CAMERAS = range(2, 9)
#: Pairs that say what any two have in common.
_PAIRS = 4096


def leaning(
    described: Described, files: Sequence[FrameFile], poses: Poses, one_drive: bool = False
) -> tuple[Described, Bools]:
    """``described`` with the parts of its places' neighbours, and which these are, as
    :func:`following`.

    Args:
        files, poses: what was described, with the frames that were left out.
        one_drive: as :func:`~tatvpr_edge.mapping.files.drives_of`.
    """
    kept = described.kept
    own = Poses(poses.values[kept], poses.frame, poses.source)
    frames = [files[index] for index in kept]
    linked = following(frames, own, described.descriptors[0], kept, one_drive)
    rows = [lent(part, linked) for part in described.descriptors]
    return replace(described, descriptors=rows), linked


def beside(linked: Bools) -> int:
    """How many places have a neighbour."""
    return int((np.append(linked, False) | np.insert(linked, 0, False)).sum())


def following(
    frames: Sequence[FrameFile],
    poses: Poses,
    rows: F32,
    numbers: Sequence[int] | None = None,
    one_drive: bool = False,
) -> Bools:
    """Whether each of ``frames`` but the first is the neighbour of the one before: bool [N - 1].

    Frames of one drive are where their positions are near, unless these follow no order or several
    cameras take turns. Where one is unknown, those of a recording are, and those of a drive whose
    pictures look like a drive in their order, unless time or frames are missing between them. None
    is where both are known to look elsewhere.

    Args:
        poses: of these frames.
        rows: their descriptors, float32 [N, D].
        numbers: of these frames among those that there were, where some were left out.
        one_drive: as :func:`~tatvpr_edge.mapping.files.drives_of`.
    """
    return linked(
        drives_of(frames, one_drive),
        poses,
        rows,
        np.array([isinstance(frame, RecordedFrame) for frame in frames], np.bool_),
        [frame.time_s if isinstance(frame, RecordedFrame) else None for frame in frames],
        numbers,
    )


def linked(
    drives: Sequence[str],
    poses: Poses,
    rows: F32,
    recorded: Bools,
    seen_s: Sequence[float | None],
    numbers: Sequence[int] | None = None,
    remedy: str = "give each a folder of its own",
) -> Bools:
    """The same of frames, or of places, that are told apart by what they are drives of.

    Args:
        drives: a name for each; those of one are in its order.
        recorded: bool [N], whose order is a camera's, whatever their positions and looks.
        seen_s: when each was, where that is known.
        remedy: what is to be done where several cameras take turns.
    """
    follows = None
    if np.isnan(poses.positions).any():
        drive = recorded.copy()
        for own in _grouped(drives, ~recorded):
            drive[own] = _is_drive(rows[own])
        follows = drive[:-1] & drive[1:] & ~_paused(seen_s)
        if numbers is not None:
            follows &= np.diff(np.asarray(numbers, np.int64)) <= NEAR
    alone = np.zeros(len(drives), np.bool_)
    for own in _grouped(drives, ~recorded):
        cameras = _cameras_in_turn(rows[own[:_PAIRS]])
        if cameras:
            alone[own] = True
            _LOG.warning(
                "%s: a picture is like the one %d further on, not like the next, as if %d cameras "
                "(or drives) took turns: %s, so that places know their neighbours",
                printable(drives[own[0]] or "."),
                cameras,
                cameras,
                remedy,
            )
    return neighbouring(drives, poses.values, poses.frame, recorded, follows) & ~alone[1:]


def neighbouring(
    folders: Sequence[str],
    poses: F64,
    frame: str,
    recorded: Bools | None = None,
    follows: Bools | None = None,
) -> Bools:
    """The same of poses float64 [N, 7] (NaN unknown) in a pose frame, whatever is seen there.

    Args:
        folders: of each frame.
        recorded: bool [N], whose order is a camera's, whatever their positions; None: of none.
        follows: bool [N - 1], where one of two positions is unknown; None: none does.
    """
    one, other = poses[:-1], poses[1:]
    apart = metres_in_space(one, other, frame)
    near = apart <= NEAR * WITHIN_M[frame]
    ordered = np.zeros(len(poses), np.bool_) if recorded is None else recorded.copy()
    for own in _grouped(folders, ~ordered):
        ordered[own] = _in_order(poses[own], frame)
    near &= ordered[1:]
    if follows is not None:
        near |= np.isnan(apart) & follows
    same = [before == behind for before, behind in pairwise(folders)]
    alike = np.abs((one[:, 3:] * other[:, 3:]).sum(axis=1)).clip(0, 1)
    elsewhere = 2 * np.degrees(np.arccos(alike)) > TURNED_DEG  # an unknown turn is no reason
    return near & np.asarray(same, np.bool_) & ~elsewhere


def _grouped(folders: Sequence[str], of: Bools) -> list[list[int]]:
    """The numbers of those frames, by folder."""
    groups: dict[str, list[int]] = {}
    for number in np.flatnonzero(of).tolist():
        groups.setdefault(folders[number], []).append(number)
    return list(groups.values())


def _paused(seen_s: Sequence[float | None]) -> Bools:
    """Before which but the first a drive was halted, or its clock set back, so that nobody knows
    where the camera went meanwhile: bool [N - 1]."""
    gaps = np.diff(np.array([np.nan if time_s is None else time_s for time_s in seen_s]))
    some = gaps[gaps > 0]
    usual = float(np.median(some)) if len(some) else 0.0  # frames are taken by time
    return np.asarray((gaps < 0) | (gaps > usual + LONGEST_GAP_S))


def _in_order(poses: F64, frame: str) -> bool:
    """Whether most places are nearer to the next one than any two are; few say nothing, and are."""
    known = poses[~np.isnan(poses[:, 0])]
    if len(known) < _FEWEST:
        return True
    some, others = _any_two(len(known))
    any_two_m = np.median(metres_in_space(known[some], known[others], frame))
    nearer = metres_in_space(known[:-1], known[1:], frame) <= any_two_m
    return bool(nearer.mean() >= _NEARER)


def _is_drive(rows: F32) -> bool:
    """Whether places lose what they have in common with each other along their order."""
    return len(rows) >= _FEWEST and _more_alike(rows, 1, 1 + _FURTHER)


def _cameras_in_turn(rows: F32) -> int:
    """After how many places the one comes that is like a place, where that is not the next: several
    cameras take turns, or one looks all around. 0: it is the next."""
    if len(rows) < _FEWEST:
        return 0
    return next((steps for steps in _CAMERAS if _more_alike(rows, steps, 1)), 0)


def _more_alike(rows: F32, steps: int, others: int) -> bool:
    """Whether places so many steps apart have more in common than those ``others`` apart."""
    some, any_one = _any_two(len(rows))
    spread = _alike(rows[some], rows[any_one]).std()
    more = _alike(rows[:-steps], rows[steps:]).mean() - _alike(rows[:-others], rows[others:]).mean()
    chance = (1 / (len(rows) - steps) + 1 / (len(rows) - others)) ** 0.5
    return bool(spread > 0 and more >= max(_DECAY, _SURE * chance) * spread)


def _any_two(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of two different ones of so many, always the same."""
    draw = np.random.default_rng(0)
    some = draw.integers(0, count, _PAIRS)
    return some, (some + draw.integers(1, count, _PAIRS)) % count


def _alike(one: F32, other: F32) -> F32:
    return np.einsum("nd,nd->n", one, other)


def lent(rows: F32, linked: Bools, behind: Bools | None = None) -> F32:
    """Descriptors float32 [N, D] of unit length, each with its part of its neighbours'.

    Args:
        linked: bool [N - 1], whether each place but the first is the neighbour of the one before.
        behind: whether each but the last keeps a part of the one behind it; None: as ``linked``.
    """
    total = rows.copy()
    total[1:] += np.where(linked, np.float32(PART), np.float32(0))[:, None] * rows[:-1]
    linked = linked if behind is None else behind
    total[:-1] += np.where(linked, np.float32(PART), np.float32(0))[:, None] * rows[1:]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # Neighbours that cancel a place out are none; the place itself is.
    return np.where(length > 0, total / np.where(length > 0, length, 1), rows)
