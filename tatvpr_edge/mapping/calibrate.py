"""``map calibrate``: when a map's answers are right, learned from answers whose truth is known.

In: a map, and either labelled queries, the map's own frames, or nothing but the map. Every query
is asked twice: of the whole map, and of the map without the query's surroundings, where whatever
answers is wrong; so half of what is learned from are places that the map does not hold. The C core
searches, so that scores and margins are those of a robot's queries. Out: one logistic calibration
a band, stored in the map.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.build import PathLike, folder_of, frames_and_poses
from tatvpr_edge.mapping.calibrate_sequences import (
    FEWEST,
    SequenceReport,
    ask_sequences,
    fit_sequences,
)
from tatvpr_edge.mapping.coordinates import metres_apart
from tatvpr_edge.mapping.describe import describe_frames
from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.mapping.logistic import (
    Quality,
    choose_threshold,
    fit_weights,
    log_odds,
    quality,
)
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import StoredMap, rewrite
from tatvpr_edge.runtime.tracking import FRAMES, check_sequence
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
from tatvpr_edge.spec.maptypes import Calibration, MapInfo, Places, calibrated

Step = Callable[[int], None]
#: A folder or recording, or the frames of one.
Given = PathLike | Sequence[FrameFile]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: An answer is right within so many metres, by pose frame, or places along the order of a drive.
WITHIN_M = {"local": 5.0, "utm": 25.0, "geographic": 25.0}
WITHIN_PLACES = 3
#: Share of accepted answers that is to be right.
PRECISION = 0.95
#: The k that frames are described at.
KS = (1.0, 0.4, 0.2)
#: Places asked for by the map's own descriptors, spread evenly over it.
MOST_PLACES = 2000
#: Places of it that are asked for one after another.
_DRIVE = 40
#: What is elsewhere lies further than this many times what counts as right. Two right places may
#: stand on either side of the query, so 2 at least; places just beyond look much alike, and more
#: than 4 tells no more (tools/calibration_figures.py).
_ELSEWHERE = 4


@dataclass(frozen=True)
class Asked:
    """A query whose truth is known.

    Attributes:
        descriptor: float32 [descriptor_size].
        k, tokens: what it was made with.
        near: bool [places]: right answers.
        around: bool [places]: the query's surroundings, right answers included.
        own: the place that the query itself is in the map; -1: none.
        drive: queries of one number that follow each other are one camera's, in its order.
    """

    descriptor: NDArray[np.float32]
    k: float
    tokens: float
    near: Bools
    around: Bools
    own: int = -1
    drive: int = 0

    @property
    def setting(self) -> tuple[float, float]:
        """(k, tokens)."""
        return self.k, self.tokens


@dataclass(frozen=True)
class Answers:
    """What a map answered to known queries.

    Attributes:
        band: int [N]: which band was searched.
        k: float64 [N]: of the query.
        scores, margins: float64 [N].
        right: bool [N].
        answerable: bool [N]: whether a right answer was in the map.
    """

    band: NDArray[np.int64]
    k: F64
    scores: F64
    margins: F64
    right: Bools
    answerable: Bools

    def __len__(self) -> int:
        return len(self.right)

    def where(self, chosen: Bools) -> Answers:
        """Some of them."""
        return Answers(
            self.band[chosen],
            self.k[chosen],
            self.scores[chosen],
            self.margins[chosen],
            self.right[chosen],
            self.answerable[chosen],
        )


@dataclass(frozen=True)
class BandReport:
    """One band after calibration.

    Attributes:
        answers, right: how many it was learned from, and how many of them are right.
        accepted: how many of them the threshold accepts.
        reached: whether the precision can be had; where not, nothing is accepted.
        quality: of the confidence, on the answers that it was learned from.
        sequence: the same of sequences of frames; None: not asked for, or too few answers.
    """

    k: float
    tokens: float
    calibration: Calibration
    answers: int
    right: int
    accepted: int
    reached: bool
    quality: Quality
    sequence: SequenceReport | None = None


@dataclass(frozen=True)
class Calibrated:
    """What ``calibrate_map`` did: its sources, and each band of the map."""

    path: Path
    source: str
    within_m: float
    within_places: int
    bands: tuple[BandReport, ...]


def calibrate_map(
    localizer: Localizer,
    path: PathLike,
    queries: Given | None = None,
    *,
    poses: PathLike | None = None,
    pose_frame: str | None = None,
    frames: Given | None = None,
    precision: float = PRECISION,
    within_m: float | None = None,
    within_places: int = WITHIN_PLACES,
    ks: Sequence[float] = KS,
    sequence: int = FRAMES,
    progress: Step | None = None,
) -> Calibrated:
    """Learn when the answers of the map at ``path`` are right, and store it there, atomically.

    Args:
        localizer: of the map's model; it describes and its code searches.
        queries: frames with poses (a folder, or what ``frames_of`` found), in the map's pose frame.
            Neither these nor ``frames``: the
            map's own descriptors ask.
        poses, pose_frame: of ``queries``, as :func:`build_map`.
        frames: the frames that the map was made of (their names are its tags), described anew.
        precision: share of accepted answers that is to be right, in [0.5, 1).
        within_m: an answer is right within so many metres; None: 5 m, and 25 m in utm and
            geographic maps.
        within_places: where positions are unknown, right is so far along the order of a drive.
        ks: k that frames are described at.
        sequence: also learn when sequences of so many frames are right (the queries are then taken
            for drives, in the order of their names); 1: single frames alone.
        progress: told after every frame described, or place asked, with 1.

    Raises:
        UsageError: an argument is out of range.
        DataError: too few right or wrong answers to learn from, or frames that cannot be used.
        MapError: the map is damaged, of another model, or cannot be written.
    """
    target = Path(path).expanduser()
    if queries is not None and frames is not None:
        raise UsageError("give labelled queries or the map's own frames, not both")
    if not 0.5 <= precision < 1:
        raise UsageError(f"precision is {precision!r}: from 0.5 to below 1, as in 0.95")
    if within_places < 1 or (within_m is not None and not 0 < within_m < np.inf):
        raise UsageError("an answer is right within more than 0 metres and from 1 place up")
    frames_each = check_sequence(sequence)
    artifact = localizer.artifact
    engine = Engine.of(artifact)
    place_map = PlaceMap(target, artifact.manifest.model, engine)
    limit = WITHIN_M[place_map.info.pose_frame] if within_m is None else within_m
    truth = Truth(place_map, limit, within_places)
    if queries is not None:
        asked = _labelled(localizer, place_map, truth, queries, poses, pose_frame, ks, progress)
        source = _called(queries)
    elif frames is not None:
        asked = _own_frames(localizer, place_map, truth, frames, ks, progress)
        source = _called(frames)
    else:
        asked, source = _own_descriptors(place_map, truth), "the map itself"
    # Frames take their time while they are described; searching is quick beside it.
    from_frames = queries is not None or frames is not None
    answers = ask(place_map, truth, asked, None if from_frames else progress)
    followed = None
    if frames_each > 1:
        followed = ask_sequences(truth.judging(place_map), engine, asked, frames_each)
    reports = tuple(
        with_sequence(
            fit_band(place_map, truth, answers, band, precision),
            None if followed is None else fit_sequences(followed, band, frames_each, precision),
        )
        for band in range(len(place_map.info.bands))
    )
    calibrations = [report.calibration for report in reports]

    def judged(stored: StoredMap) -> tuple[MapInfo, list[Places]]:
        if stored.base.info != place_map.info:
            raise MapError(f"the map {target} was made anew meanwhile: calibrate it again")
        return calibrated(stored.base.info, calibrations), [stored.base.places()]

    rewrite(target, judged)
    return Calibrated(target, source, limit, within_places, reports)


# ---- truth -----------------------------------------------------------------------------------


class Truth:
    """Which places of a map are right for a query, and which are around it.

    Args:
        within_m: right is within so many metres, where both positions are known.
        within_places: otherwise so far along the order of the same drive.
    """

    def __init__(self, place_map: PlaceMap, within_m: float, within_places: int) -> None:
        stored = place_map.stored
        self.within_m, self.within_places = within_m, within_places
        self._frame = place_map.info.pose_frame
        self._poses = np.concatenate([stored.base.poses, stored.added.poses])
        self._moments = np.concatenate([stored.base.moments, stored.added.moments])

    def elsewhere(self) -> Calibration:
        """A calibration that says nothing but what "elsewhere" is, so that margins are given."""
        return Calibration(
            "logistic",
            0.0,
            elsewhere_m=float(np.float32(_ELSEWHERE * self.within_m)),
            elsewhere_places=_ELSEWHERE * self.within_places,
        )

    def judging(self, place_map: PlaceMap) -> PlaceMap:
        """The map, under calibrations that say nothing but what "elsewhere" is."""
        return place_map.judging([self.elsewhere()] * len(place_map.info.bands))

    def of_position(self, pose: F64) -> tuple[Bools, Bools]:
        """(right, around) bool [places] for a pose float64 [7]."""
        apart = self._metres(pose)
        return apart <= self.within_m, apart <= _ELSEWHERE * self.within_m

    def of_place(self, place: int) -> tuple[Bools, Bools]:
        """(right, around) bool [places] for the frame of a place, which is none of its answers."""
        apart = self._metres(self._poses[place])
        known = ~np.isnan(apart)
        own = self._moments[place]
        steps = np.abs(self._moments["order"].astype(np.int64) - int(own["order"]))
        along = np.where(self._moments["drive"] == own["drive"], steps, np.iinfo(np.int64).max)
        right = np.where(known, apart <= self.within_m, along <= self.within_places)
        around = np.where(
            known, apart <= _ELSEWHERE * self.within_m, along <= _ELSEWHERE * self.within_places
        )
        right[place] = False
        around[place] = True
        return right, around

    def drive_of(self, place: int) -> int:
        """Which drive a place comes from."""
        return int(self._moments["drive"][place])

    def drives(self, names: Sequence[str], poses: F64) -> list[int]:
        """A number for each of the queries in their order: another one where the folder changes,
        or the position jumps to elsewhere.

        Args:
            names: paths below the queries' folder.
            poses: float64 [N, 7].
        """
        numbers: list[int] = []
        for row, name in enumerate(names):
            on = row > 0 and os.path.dirname(name) == os.path.dirname(names[row - 1])
            if on:
                apart = metres_apart(poses[row, None, :2], poses[row - 1, None, :2], self._frame)
                on = bool(apart[0, 0] <= _ELSEWHERE * self.within_m)
            numbers.append((numbers[-1] if numbers else -1) + (not on))
        return numbers

    def _metres(self, pose: F64) -> F64:
        flat = metres_apart(pose[None, :2], self._poses[:, :2], self._frame)[0]
        up = self._poses[:, 2] - pose[2]
        return np.asarray(np.hypot(flat, np.where(np.isnan(up), 0.0, up)))


def _called(given: Given) -> str:
    """How a message calls frames."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    return str(folder_of(given)) if given else "an empty list"


# ---- queries ---------------------------------------------------------------------------------


def _labelled(
    localizer: Localizer,
    place_map: PlaceMap,
    truth: Truth,
    queries: Given,
    table: PathLike | None,
    pose_frame: str | None,
    ks: Sequence[float],
    progress: Step | None,
) -> list[Asked]:
    files, found = frames_and_poses(queries, table, pose_frame)
    if found.source == "none":
        raise DataError(f"{_called(queries)}: its frames have no positions: give --poses FILE")
    if found.frame != place_map.info.pose_frame:
        raise MapError(
            f"the map's positions are {place_map.info.pose_frame}, those of the queries are "
            f"{found.frame}: they cannot be compared"
        )
    known = [i for i in range(len(files)) if not np.isnan(found.values[i, :2]).any()]
    if not known:
        raise DataError(f"{_called(queries)}: not one frame has a position: fill in {found.source}")
    settings = _settings(localizer, place_map, ks)
    described = describe_frames(localizer, [files[i] for i in known], settings, progress)
    chosen = [known[kept] for kept in described.kept]
    drives = truth.drives([files[i].name for i in chosen], found.values[chosen])
    asked = []
    for row, index in enumerate(chosen):
        near, around = truth.of_position(found.values[index])
        for (k, tokens), descriptors in zip(settings, described.descriptors, strict=True):
            asked.append(Asked(descriptors[row], k, tokens, near, around, drive=drives[row]))
    return asked


def _own_frames(
    localizer: Localizer,
    place_map: PlaceMap,
    truth: Truth,
    frames: Given,
    ks: Sequence[float],
    progress: Step | None,
) -> list[Asked]:
    places = {place_map.tag(place): place for place in range(len(place_map))}
    files: list[FrameFile] = [
        file for file in frames_and_poses(frames, None, None)[0] if file.name in places
    ]
    if not files:
        raise DataError(
            f"{_called(frames)}: not one frame is named like a place of the map: give the folder "
            "that the map was made of, or labelled queries"
        )
    settings = _settings(localizer, place_map, ks)
    described = describe_frames(localizer, files, settings, progress)
    asked = []
    for row, kept in enumerate(described.kept):
        own = places[files[kept].name]
        near, around = truth.of_place(own)
        for (k, tokens), descriptors in zip(settings, described.descriptors, strict=True):
            asked.append(Asked(descriptors[row], k, tokens, near, around, own, truth.drive_of(own)))
    return asked


def _own_descriptors(place_map: PlaceMap, truth: Truth) -> list[Asked]:
    asked = []
    for place in _spread_places(len(place_map)):
        near, around = truth.of_place(place)
        for index, band in enumerate(place_map.info.bands):
            descriptor = stored_descriptor(place_map, index, place)
            asked.append(
                Asked(descriptor, band.k, band.tokens, near, around, place, truth.drive_of(place))
            )
    return asked


def _spread_places(places: int) -> list[int]:
    """At most MOST_PLACES of them: short drives, evenly over the map."""
    if places <= MOST_PLACES:
        return list(range(places))
    firsts = np.linspace(0, places - _DRIVE, MOST_PLACES // _DRIVE).round().astype(int)
    return sorted({place for first in firsts.tolist() for place in range(first, first + _DRIVE)})


def stored_descriptor(place_map: PlaceMap, band: int, place: int) -> NDArray[np.float32]:
    """A descriptor float32 [descriptor_size] that is stored as ``place`` is, in that band."""
    info, base = place_map.info, place_map.stored.base
    part, row = (base.rows, place) if place < len(base) else (
        place_map.stored.added.rows, place - len(base)
    )  # fmt: skip
    stored = part[band].data[row]
    made = np.zeros(info.descriptor_size, np.float32)
    if info.kind == "int8":
        made[: info.dim] = stored
        return made
    mean = info.bands[band].mean
    signs = np.unpackbits(stored.view(np.uint8), bitorder="little").astype(np.float32) * 2 - 1
    made[: info.dim] = signs if mean is None else np.asarray(mean, np.float32) + signs
    return made


def _settings(
    localizer: Localizer, place_map: PlaceMap, ks: Sequence[float]
) -> list[tuple[float, float]]:
    """(k, tokens) that frames are described at: ``ks``, as far as the artifact has them, and each
    band's own, so that every band is asked."""
    low, high = localizer.artifact.manifest.k_range
    made = [(k, 1.0) for k in ks if low <= k <= high]
    made += [(band.k, band.tokens) for band in place_map.info.bands]
    return list(dict.fromkeys(made))


# ---- asking and fitting ----------------------------------------------------------------------


def ask(
    place_map: PlaceMap, truth: Truth, asked: Sequence[Asked], progress: Step | None = None
) -> Answers:
    """What the map answers to each query: first the whole map, then the map without the query's
    surroundings. A query without a right answer in the map is asked once."""
    judging = truth.judging(place_map)
    bands = list(judging.info.bands)
    rows = []
    for query in asked:
        without = np.zeros(len(judging), np.bool_)
        if query.own >= 0:
            without[query.own] = True
        for left_out in (without, query.around):
            if left_out is query.around and not query.near.any():
                continue
            found = judging.search(query.descriptor, query.k, query.tokens, without=left_out)
            if found.candidates and found.margin is not None:
                best = found.candidates[0]
                band = next(i for i, one in enumerate(bands) if one is found.band)
                right = bool(query.near[best.place]) and left_out is without
                answerable = left_out is without and bool(query.near.any())
                rows.append((band, query.k, best.score, found.margin, right, answerable))
        if progress is not None:
            progress(1)
    band_of, k, scores, margins, rights, answerables = zip(*rows, strict=True) if rows else [()] * 6
    return Answers(
        np.array(band_of, np.int64),
        np.array(k, np.float64),
        np.array(scores, np.float64),
        np.array(margins, np.float64),
        np.array(rights, np.bool_),
        np.array(answerables, np.bool_),
    )


def with_sequence(report: BandReport, of: SequenceReport | None) -> BandReport:
    """The same, of sequences as well."""
    if of is None:
        return report
    made = replace(report.calibration, sequence=of.calibration)
    return replace(report, calibration=made, sequence=of)


def fit_band(
    place_map: PlaceMap, truth: Truth, answers: Answers, band: int, precision: float
) -> BandReport:
    """The calibration of one band from the answers that it gave.

    Raises:
        DataError: too few right or wrong answers.
    """
    of = place_map.info.bands[band]
    mine = answers.where(answers.band == band)
    right = int(mine.right.sum())
    for count, what, remedy in (
        (right, "right", "give more queries (QUERIES --poses FILE), or a wider --within"),
        (len(mine) - right, "wrong", "the map needs more places further apart than --within"),
    ):
        if count < FEWEST:
            raise DataError(
                f"band k={of.k:g}: {count} {what} answers, {FEWEST} are needed to learn from: "
                f"{remedy}"
            )
    weights = fit_weights(mine.scores, mine.margins, mine.right)
    odds = log_odds(weights, mine.scores, mine.margins)
    setting = choose_threshold(odds, mine.right, precision)
    answerable = mine.answerable
    recall = float((odds[answerable] >= setting.threshold).mean()) if answerable.any() else 0.0
    bare = truth.elsewhere()
    made = Calibration(
        "logistic",
        setting.threshold,
        weights,
        bare.elsewhere_m,
        bare.elsewhere_places,
        float(np.float32(precision)),
        float(np.float32(recall)),
    )
    confidence = 1 / (1 + np.exp(-odds))
    return BandReport(
        of.k,
        of.tokens,
        made,
        len(mine),
        right,
        setting.accepted,
        setting.reached,
        quality(confidence, mine.right),
    )
