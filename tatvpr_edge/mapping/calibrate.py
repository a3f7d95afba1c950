"""``map calibrate``: when a map's answers are right, learned from answers whose truth is known.

In: a map, and either labelled queries, the map's own frames, or nothing but the map. Every query
is asked twice: of the whole map, and of the map without the query's surroundings, where whatever
answers is wrong; so half of what is learned from are places that the map does not hold. The C core
searches, so that scores and margins are those of a robot's queries. Out: one logistic calibration
a band, stored in the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tatvpr_edge.mapping.build import PathLike
from tatvpr_edge.mapping.calibrate_answers import Answers, AtSetting, Row
from tatvpr_edge.mapping.calibrate_queries import (
    FEWEST,
    Asked,
    Given,
    Step,
    Truth,
    called,
    labelled,
    own_descriptors,
    own_frames,
)
from tatvpr_edge.mapping.calibrate_sequences import SequenceReport, ask_sequences, fit_sequences
from tatvpr_edge.mapping.coordinates import WITHIN_M
from tatvpr_edge.mapping.describe import Skipped
from tatvpr_edge.mapping.logistic import Quality, choose_threshold, quality
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import StoredMap, rewrite
from tatvpr_edge.runtime.search import check_judges
from tatvpr_edge.runtime.signed_release import refuse_rewriting
from tatvpr_edge.runtime.tracking import FRAMES, check_sequence
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
from tatvpr_edge.spec.limits import check_fraction, check_k
from tatvpr_edge.spec.maptypes import MapInfo, Places, calibrated
from tatvpr_edge.spec.placemap import Base
from tatvpr_edge.spec.scores import cosines_of_signs
from tatvpr_edge.spec.values import above, instance, number, whole, wrong
from tatvpr_edge.spec.values import path as check_path

#: An answer is right within ``WITHIN_M``, or so many places along the order of a drive.
WITHIN_PLACES = 3
#: Share of accepted answers that is to be right.
PRECISION = 0.95
#: The k that frames are described at.
KS = (1.0, 0.4, 0.2)
#: The kind of calibration that sequences are learned for.
OF_SEQUENCES = "rooted"
#: (k, tokens) that frames are described at where nothing is said.
SETTINGS = (*((k, 1.0) for k in KS), (1.0, 0.5), (0.4, 0.5))


@dataclass(frozen=True)
class BandReport:
    """One band after calibration.

    Attributes:
        answers, right: how many it was learned from, and how many of them are right.
        accepted: how many of them the threshold accepts.
        reached: whether the precision can be had; where not, nothing is accepted.
        quality: of the confidence, on the answers that it was learned from.
        by_setting: what is accepted at each setting, all tokens first, then from the largest k
            down: one threshold serves them all, and keeps the precision over all of them.
        sequence: the same of sequences of frames; None: not asked for, or too few answers.
        sequence_seen: how many answers of sequences were right, and how many wrong.
    """

    k: float
    tokens: float
    calibration: Calibration
    answers: int
    right: int
    accepted: int
    reached: bool
    quality: Quality
    by_setting: tuple[AtSetting, ...]
    sequence: SequenceReport | None = None
    sequence_seen: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Calibrated:
    """What ``calibrate_map`` did: its sources, and each band of the map.

    Attributes:
        source, within_m, within_places: what was asked, and what was right.
        bands: in the map's order.
        skipped: frames without a position (or, of ``frames``, that are no place of the map or have
            the name of several), that could not be read or show nothing, with the reason: nothing
            was learned of them.
    """

    path: Path
    source: str
    within_m: float
    within_places: int
    bands: tuple[BandReport, ...]
    skipped: tuple[Skipped, ...] = ()


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
    ks: Sequence[float | tuple[float, float]] | None = None,
    sequence: int = FRAMES,
    progress: Step | None = None,
) -> Calibrated:
    """Learn when the answers of the map at ``path`` are right, and store it there, atomically.

    Args:
        localizer: of the map's model; it describes and its code searches.
        queries: frames with poses (a folder, or what ``frames_of`` found), in the map's pose frame.
            Neither these nor ``frames``: the map's own descriptors ask. What has no position,
            cannot be read or shows nothing (black, blank, a covered lens) is left out and listed.
        poses, pose_frame: of ``queries``, as :func:`build_map`.
        frames: the frames that the map was made of (their names are its tags), described anew.
        precision: share of accepted answers that is to be right, in [0.5, 1).
        within_m: an answer is right within so many metres; None: 5 m, and 25 m in utm and
            geographic maps.
        within_places: where positions are unknown, right is so far along the order of a drive.
        ks: what frames are described at: k with all tokens, or (k, tokens). None: ``SETTINGS``,
            as far as the artifact was built for their k.
        sequence: also learn when sequences of so many frames are right (the queries are then taken
            for drives, in the order of their names); 1: single frames alone.
        progress: told after every frame described, or place asked, with 1.

    Raises:
        UsageError: an argument is out of range.
        DataError: too few right or wrong answers to learn from, or frames that cannot be used.
        MapError: the map is damaged, of another model, or cannot be written, or no longer begins
            with the places that were asked (added ones are kept); or ``localizer``'s code was built
            before sequences were judged as they are.
    """
    instance(localizer, Localizer, "localizer", "a Localizer, which describes and searches")
    target = check_path(path, "map", "a .placemap")
    if queries is not None and frames is not None:
        raise UsageError("give labelled queries or the map's own frames, not both")
    if queries is None and (poses is not None or pose_frame is not None):
        raise UsageError("poses and their frame are those of labelled queries: give these as well")
    if ks is not None and queries is None and frames is None:
        raise UsageError(
            "k is what frames are described at, and a map's own descriptors are made: give the "
            "frames (QUERIES or --frames), or leave k out"
        )
    meaning = "from 0.5 to below 1, as in 0.95"
    if not 0.5 <= number(precision, "precision", meaning) < 1:
        raise wrong(precision, "precision", meaning)
    whole(within_places, 1, "within_places", "an answer is right so many places on, from 1 up")
    if within_m is not None:
        above(within_m, 0, "within_m", "an answer is right within so many metres, more than 0")
    frames_each = check_sequence(sequence)
    artifact = localizer.artifact
    settings = _settings(artifact.manifest.k_range, ks)
    engine = Engine.of(artifact)
    if frames_each > 1:  # its paths would be others than those of robots that can open the map
        check_judges(engine, OF_SEQUENCES)
    place_map = PlaceMap(target, artifact.manifest.model, engine)
    refuse_rewriting(target)  # not only when all frames were described
    limit = WITHIN_M[place_map.info.pose_frame] if within_m is None else within_m
    truth = Truth(place_map, limit, within_places)
    if queries is not None:
        asked, skipped = labelled(
            localizer, place_map, truth, queries, poses, pose_frame, settings, progress
        )
        source = called(queries)
    elif frames is not None:
        asked, skipped = own_frames(localizer, place_map, truth, frames, settings, progress)
        source = called(frames)
    else:
        asked, skipped, source = own_descriptors(place_map, truth), (), "the map itself"
    # Frames take their time while they are described; searching is quick beside it.
    from_frames = queries is not None or frames is not None
    answers = ask(place_map, truth, asked, None if from_frames else progress)
    followed = None
    if frames_each > 1:
        followed = ask_sequences(truth.judging(place_map), engine, asked, frames_each)
    reports = tuple(
        with_sequence(
            fit_band(place_map, truth, answers, band, precision),
            followed,
            band,
            frames_each,
            precision,
        )
        for band in range(len(place_map.info.bands))
    )
    calibrations = [report.calibration for report in reports]

    def judged(stored: StoredMap) -> tuple[MapInfo, list[Places]]:
        if not _begins_with(stored.base, place_map.stored):
            raise MapError(f"the map {target} was made anew meanwhile: calibrate it again")
        return calibrated(stored.base.info, calibrations), [stored.base.places()]

    rewrite(target, judged)
    return Calibrated(target, source, limit, within_places, reports, skipped)


def _begins_with(now: Base, asked: StoredMap) -> bool:
    """Whether those are still the map's first places, as they were asked, and where."""
    first, every = len(asked.base), len(asked)
    return (
        now.info == asked.base.info
        and len(now) >= every
        and np.array_equal(now.poses[:first], asked.base.poses, equal_nan=True)
        and np.array_equal(now.poses[first:every], asked.added.poses, equal_nan=True)
        and all(
            np.array_equal(is_now.data[:first], was.data)
            and np.array_equal(is_now.data[first:every], added.data)
            for is_now, was, added in zip(now.rows, asked.base.rows, asked.added.rows, strict=True)
        )
    )


def _settings(
    k_range: tuple[float, float], ks: Sequence[float | tuple[float, float]] | None
) -> list[tuple[float, float]]:
    """The (k, tokens) of an artifact that frames are described at.

    Raises:
        UsageError: one that was asked for is outside ``k_range``.
    """
    low, high = k_range
    if ks is None:
        return [(k, tokens) for k, tokens in SETTINGS if low <= k <= high]
    try:
        pairs = [(k, tokens) for k, tokens in (o if isinstance(o, tuple) else (o, 1.0) for o in ks)]
    except (TypeError, ValueError):
        raise wrong(
            ks, "ks", "k, or (k, tokens), of each setting, as in (1.0, (0.4, 0.5))"
        ) from None
    return [(check_k(k, k_range), check_fraction(tokens, "tokens")) for k, tokens in pairs]


def ask(
    place_map: PlaceMap, truth: Truth, asked: Sequence[Asked], progress: Step | None = None
) -> Answers:
    """What the map answers to each query: first the whole map, then the map without the query's
    surroundings. A query without a right answer in the map is asked once."""
    judging = truth.judging(place_map)
    bands = list(judging.info.bands)
    rows: list[Row] = []
    for query in asked:
        without = query.never
        for left_out in (without, query.around):
            if left_out is query.around and not query.near.any():
                continue
            found = judging.search(query.descriptor, query.k, query.tokens, without=left_out)
            if found.candidates and found.margin is not None:
                best = found.candidates[0]
                band = next(i for i, one in enumerate(bands) if one is found.band)
                right = bool(query.near[best.place]) and left_out is without
                answerable = left_out is without and bool(query.near.any())
                score, margin = best.score, found.margin
                if query.signs:
                    rival, score = cosines_of_signs(np.array([score - margin, score])).tolist()
                    margin = score - rival
                columns = score, margin
                rows.append((band, query.setting, columns, right, answerable, query.where))
        if progress is not None:
            progress(1)
    return Answers.of(rows, 2)


def with_sequence(
    report: BandReport, followed: Answers | None, band: int, frames: int, precision: float
) -> BandReport:
    """The same, of sequences as well, which gave the answers ``followed``; None: not asked for."""
    if followed is None:
        return report
    seen = followed.where(followed.band == band).seen()
    made = report.calibration
    of = fit_sequences(followed, band, frames, precision, made)
    if of is not None:
        made = replace(made, kind=OF_SEQUENCES, sequence=of.calibration)
    return replace(report, calibration=made, sequence=of, sequence_seen=seen)


def fit_band(
    place_map: PlaceMap, truth: Truth, answers: Answers, band: int, precision: float
) -> BandReport:
    """The calibration of one band from the answers that it gave.

    Raises:
        DataError: too few right or wrong answers.
    """
    of = place_map.info.bands[band]
    mine = answers.where(answers.band == band)
    right, wrong = mine.seen()
    wider, bare = truth.wider, truth.elsewhere()
    more = truth.more(bool(mine.answerable.any()))
    far = f"{bare.elsewhere_m:g} m" if truth.by_metres else f"{bare.elsewhere_places} places"
    if not len(mine):
        more = "add more places" if truth.by_metres else more
        raise DataError(
            f"band k={of.k:g}: hardly a place lies elsewhere, more than {far} from a query, and "
            f"answers are judged beside those: {more}, or a narrower {wider}"
        )
    for count, what, remedy in (
        (right, "right", f"{more}, or a wider {wider}"),
        (wrong, "wrong", f"the map needs more places further apart than {wider}"),
    ):
        if count < FEWEST:
            raise DataError(
                f"band k={of.k:g}: {count} {what} answers, {FEWEST} are needed to learn from: "
                f"{remedy}"
            )
    weights, dials = mine.learn()
    odds = mine.odds(weights, dials)
    setting = choose_threshold(odds, mine.right, precision)
    answerable = mine.answerable
    recall = float((odds[answerable] >= setting.threshold).mean()) if answerable.any() else 0.0
    made = Calibration(
        "logistic",
        setting.threshold,
        (weights[0], weights[1], weights[2]),
        bare.elsewhere_m,
        bare.elsewhere_places,
        float(np.float32(precision)),
        float(np.float32(recall)),
        dials=dials,
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
        mine.by_setting(odds >= setting.threshold),
    )
