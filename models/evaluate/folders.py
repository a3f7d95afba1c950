"""Two folders of any frames: the best places of one for each frame of the other, and recall where
both say where they were taken. Needs an artifact for this machine; no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping import (
    FrameFile,
    Picking,
    Poses,
    Skipped,
    find_poses,
    frames_of,
    is_recording,
)
from tatvpr_edge.mapping.build import folder_of
from tatvpr_edge.mapping.coordinates import metres_apart
from tatvpr_edge.mapping.describe import describe_frames
from tatvpr_edge.mapping.neighbours import leaning
from tatvpr_edge.models.evaluate.recall import (
    RANKS,
    WITHIN_M,
    BestPlaces,
    recall,
    rows_of,
    scores_of,
)
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.errors import DataError, UsageError

Floats = NDArray[np.float32]

#: Places scored at once.
_PIECE = 1024


@dataclass(frozen=True)
class Side:
    """The frames of one folder that could be read.

    Attributes:
        files: the frames.
        poses: where they were taken; None where nothing says.
        descriptors: float32 [N, D] for each k.
        skipped: frames left out: unreadable ones, and of a map those that nothing judges, because
            their position is unknown where others' are known.
    """

    files: Sequence[FrameFile]
    poses: Poses | None
    descriptors: dict[float, Floats]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Answers:
    """The best places at one k.

    Attributes:
        places: int64 [Q, n], numbers of the map's frames, best first; -1 beyond the map's end.
        scores: float32 [Q, n], cosines.
        metres: float64 [Q, n] from query to place; None without positions.
        ranks: int64 [Q], of the first right answer (0 is best), -1 where the map holds none;
            None without positions.
    """

    k: float
    places: NDArray[np.int64]
    scores: Floats
    metres: NDArray[np.float64] | None
    ranks: NDArray[np.int64] | None

    def recall(self, at: int) -> float | None:
        """Percent of the answerable queries; None without positions."""
        return None if self.ranks is None else recall(self.ranks, at)


@dataclass(frozen=True)
class Comparison:
    """Both folders, and the answers at every k.

    Attributes:
        why_no_recall: why ``answers`` know no right and wrong; empty where they do.
        within_m: an answer is right within this distance.
    """

    map: Side
    queries: Side
    answers: tuple[Answers, ...]
    within_m: float
    why_no_recall: str

    @property
    def counted(self) -> int | None:
        """Queries with a right answer in the map; None without positions."""
        ranks = self.answers[0].ranks
        return None if ranks is None else int((ranks >= 0).sum())

    @property
    def queries_unplaced(self) -> int:
        """Queries whose position is unknown, where others are known: they do not count."""
        return 0 if self.queries.poses is None else int(self.queries.poses.unknown.sum())

    @property
    def queries_of_map(self) -> int:
        """Queries that are frames of the map as well: each finds itself."""
        own = {os.path.realpath(frame.path) for frame in self.map.files}
        return sum(os.path.realpath(frame.path) in own for frame in self.queries.files)


def compare_folders(
    localizer: Localizer,
    map_frames: Path,
    query_frames: Path,
    ks: Sequence[float],
    *,
    within_m: float = WITHIN_M,
    top: int = 5,
    views: bool = True,
    pose_frame: str | None = None,
    strict: bool = False,
    picking: Picking | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    unjudged: Callable[[], None] | None = None,
) -> Comparison:
    """Ask for every frame of ``query_frames`` in ``map_frames``, both described at the same k.

    Args:
        within_m: an answer is right within this distance.
        top: how many answers are kept; recall looks at ten at least.
        views, pose_frame, strict, picking: as for maps; ``picking`` is that of every recording, and
            ``strict`` also wants a position of every place, where the map has any.
        progress: called as ``progress(what, done, of)``.
        unjudged: called before frames are described, where there will be no recall.

    Raises:
        DataError: frames or poses that cannot be used, or positions of which no query has a right
            answer in the map.
    """
    folders = (map_frames, query_frames)
    if picking is not None and not any(map(is_recording, folders)):
        raise UsageError(f"{picking.said()} belong to recordings, and these are folders")
    files = [frames_of(folder, picking if is_recording(folder) else None) for folder in folders]
    found = [find_poses(folder_of(part), part, pose_frame=pose_frame) for part in files]
    why = _why_no_recall(found, (map_frames, query_frames))
    if why and unjudged is not None:
        unjudged()
    if not why:
        for poses, folder in zip(found, folders, strict=True):
            _require_some(poses, folder)
        if strict:
            found[0].require_all(files[0])
    sides = [
        _describe(localizer, what, part, poses, not why, ks, strict, views, progress)
        for what, part, poses in zip(("map", "queries"), files, found, strict=True)
    ]
    if sides[0].poses is not None:
        sides[0] = _placed(sides[0], map_frames)
    answers = tuple(_answers(sides[0], sides[1], k, within_m, top) for k in ks)
    if answers[0].ranks is not None and not (answers[0].ranks >= 0).any():
        raise DataError(
            f"none of {len(sides[1].files)} queries lies within {within_m:g} m of a place of the "
            "map, so there is no recall: are both of the same area and in the same pose frame? "
            "--within says what counts"
        )
    return Comparison(sides[0], sides[1], answers, within_m, why)


def _why_no_recall(found: Sequence[Poses], folders: Sequence[Path]) -> str:
    for poses, folder in zip(found, folders, strict=True):
        if poses.source == "none":
            return f"{folder} does not say where its frames were taken"
    if found[0].frame != found[1].frame:
        return f"positions of the map are {found[0].frame}, those of the queries {found[1].frame}"
    return ""


def _describe(
    localizer: Localizer,
    what: str,
    files: Sequence[FrameFile],
    poses: Poses,
    positioned: bool,
    ks: Sequence[float],
    strict: bool,
    views: bool,
    progress: Callable[[str, int, int], None] | None,
) -> Side:
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(what, done, len(files))

    bands = [(k, 1.0) for k in ks]
    # What is no place of a map is none here; a query of nothing is asked, as a robot asks it.
    place = what == "map"
    from_views = place and views
    made = describe_frames(localizer, files, bands, step, strict, as_places=place, views=from_views)
    own = Poses(poses.values[made.kept], poses.frame, poses.source)
    used = [files[i] for i in made.kept]
    if from_views:
        made, _ = leaning(made, files, poses)
    rows = dict(zip(ks, made.descriptors, strict=True))
    return Side(used, own if positioned else None, rows, made.skipped)


def _placed(side: Side, folder: Path) -> Side:
    """A map without the frames whose position is unknown: nothing could judge an answer there, and
    it would count as wrong.

    Raises:
        DataError: no position is known.
    """
    assert side.poses is not None
    _require_some(side.poses, folder)
    known = ~side.poses.unknown
    return Side(
        [frame for frame, placed in zip(side.files, known, strict=True) if placed],
        replace(side.poses, values=side.poses.values[known]),
        {k: rows[known] for k, rows in side.descriptors.items()},
        (*side.skipped, *side.poses.without(side.files)),
    )


def _require_some(poses: Poses, folder: Path) -> None:
    if poses.unknown.all():
        raise DataError(f"{folder}: not one frame has a position: fill in {poses.source}")


def _answers(gallery: Side, queries: Side, k: float, within_m: float, top: int) -> Answers:
    count = len(queries.files)
    best = BestPlaces(count, min(max(top, *RANKS), max(len(gallery.files), *RANKS)))
    asked = rows_of(queries.descriptors[k], "float")
    known = gallery.poses is not None and queries.poses is not None
    for start in range(0, len(gallery.files), _PIECE):
        part = slice(start, start + _PIECE)
        scores = scores_of(asked, rows_of(gallery.descriptors[k][part], "float"), "float")
        right = np.zeros(scores.shape, np.bool_)
        if gallery.poses is not None and queries.poses is not None:
            frame, where = gallery.poses.frame, gallery.poses.values[part, :3]
            right = metres_apart(queries.poses.values[:, :3], where, frame) <= within_m
        best.add(scores, right)
    places, scores = best.places[:, :top], best.scores[:, :top]
    metres = _metres(gallery, queries, places) if known else None
    return Answers(k, places, scores, metres, best.ranks() if known else None)


def _metres(gallery: Side, queries: Side, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """From each query to each of its places, NaN where there is none."""
    assert gallery.poses is not None and queries.poses is not None
    metres = np.full(places.shape, np.nan)
    for row, own in enumerate(queries.poses.values[:, :3]):
        there = places[row] >= 0
        found = gallery.poses.values[places[row][there], :3]
        metres[row, there] = metres_apart(own[None], found, gallery.poses.frame)[0]
    return metres
