"""``map calibrate``, of sequences: when the place is right that consecutive frames give.

In: queries of known truth in the order that they were driven. Out: the weights and the threshold
that the C core judges a path by. A drive is cut into stretches of a few times the sequence's
length; each is followed through the whole map, and through the map without its surroundings, where
no answer is right. The C core follows, so that what is learned from is what a robot gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate_answers import Answers, AtSetting, Row
from tatvpr_edge.mapping.calibrate_queries import F64, FEWEST, Asked, Bools
from tatvpr_edge.mapping.logistic import Quality, choose_threshold, quality
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Table
from tatvpr_edge.runtime.tracking import Path, Tracked
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration, rooted
from tatvpr_edge.spec.maptypes import Band
from tatvpr_edge.spec.scores import cosines_of_signs

#: A stretch is so many times as long as the sequence, in frames that count: a robot is on its way
#: for most of those, and of how long an answer has gone on short stretches teach little.
_STRETCH = 8


@dataclass(frozen=True)
class SequenceReport:
    """Sequences of one band after calibration; counts as in ``BandReport``."""

    calibration: SequenceCalibration
    answers: int
    right: int
    accepted: int
    reached: bool
    quality: Quality
    by_setting: tuple[AtSetting, ...]


def columns_of(tracked: Tracked) -> tuple[float, ...]:
    """What a path is judged by, in the order of the weights of a "rooted" calibration."""
    return (
        tracked.evidence,
        rooted(tracked.margin),
        tracked.still,
        tracked.still_margin,
        float(tracked.steady),
    )


def _drives(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Queries that one camera made one after another at one k."""
    settings = {query.setting: None for query in asked}
    for setting in settings:
        of = [query for query in asked if query.setting == setting]
        for _, drive in groupby(of, key=lambda query: query.drive):
            yield list(drive)


class _Follower:
    """Follows stretches of drives through a map; ``rows`` and ``few`` are what they teach."""

    def __init__(self, judging: PlaceMap, engine: Engine, frames: int, whole: bool) -> None:
        self._judging, self._whole, self._frames = judging, whole, frames
        self._bands = list(judging.info.bands)
        self._path = Path(engine, frames)
        self.rows: list[Row] = []
        self.few: list[bool] = []

    def stretch(self, drive: Sequence[Asked], longest: int, without: Bools | None = None) -> int:
        """From the first query on, until ``longest`` frames counted; how many queries that are.

        Args:
            without: bool [places] of the stretch's surroundings, which are left out; None: of none.
        """
        self._path.restart()
        counted = 0
        for done, query in enumerate(drive):
            follow = _of_signs(self._path.step) if query.signs else self._path.step
            left_out = query.never if without is None else without
            found = self._judging.follow(
                follow, query.descriptor, query.k, query.tokens, without=left_out
            )
            assert found.tracked is not None
            counted += found.tracked.counted
            if counted > longest:
                return done
            # Where the answer before stands, it teaches nothing more; and nothing does where hardly
            # any place elsewhere is left to compare with.
            if found.margin is not None and (self._whole or found.tracked.counted):
                band = next(i for i, one in enumerate(self._bands) if one is found.band)
                right = bool(query.near[found.tracked.place]) and without is None
                answerable = without is None and bool(query.near.any())
                columns, where = columns_of(found.tracked), drive[0].where
                self.rows.append((band, query.setting, columns, right, answerable, where))
                self.few.append(found.tracked.frames < self._frames)
        return len(drive)


def ask_sequences(
    judging: PlaceMap,
    engine: Engine,
    asked: Sequence[Asked],
    frames: int,
    whole: bool = False,
) -> Answers:
    """What the map answers along each stretch.

    Args:
        judging: the map, under calibrations that say what is elsewhere.
        whole: follow every drive from end to end.
    """
    follower = _Follower(judging, engine, frames, whole)
    longest = len(asked) if whole else _STRETCH * frames
    for drive in _drives(asked):
        while drive:
            done = follower.stretch(drive, longest)
            stretch, drive = drive[:done], drive[done:]
            # Where no query of a stretch has a right answer, asking again tells nothing new.
            if any(query.near.any() for query in stretch):
                around = np.zeros_like(stretch[0].around)
                for query in stretch:
                    around |= query.around
                follower.stretch(stretch, len(stretch), around)
    return Answers.of(follower.rows, 5, follower.few)


def _of_signs(step: Callable[..., Tracked]) -> Callable[..., Tracked]:
    """``step`` of a query that is signs alone: it takes in the scores that a frame's numbers would
    have had."""

    def of_frames(
        held: object,
        table: Table,
        bands: Sequence[Band],
        band: int,
        scores: NDArray[np.float32] | None,
        *motion: Any,
    ) -> Tracked:
        likely = None if scores is None else cosines_of_signs(scores)
        return step(held, table, bands, band, likely, *motion)

    return of_frames


def _odds_alone(answers: Answers, single: Calibration) -> F64:
    """float64 [N]: log-odds as of single frames, above the threshold of those."""
    margins = np.copysign(answers.columns[:, 1] ** 2, answers.columns[:, 1])
    columns = np.column_stack([answers.columns[:, 0], margins])
    return replace(answers, columns=columns).odds(single.weights, single.dials) - single.threshold


def fit_sequences(
    answers: Answers,
    band: int,
    frames: int,
    precision: float,
    single: Calibration | None = None,
) -> SequenceReport | None:
    """The calibration of one band's sequences; None: too few right or wrong answers.

    Args:
        single: of its single frames: what rests on fewer frames than a sequence has is accepted
            where that holds as well. The threshold is chosen without.
    """
    mine = answers.where(answers.band == band)
    right, wrong = mine.seen()
    if min(right, wrong) < FEWEST:
        return None
    weights, dials = mine.learn()
    odds = mine.odds_by_others()  # paths are few, so that what they taught suits them too well
    # What one wrong path more would cost: it lasts for up to about twice the sequence.
    setting = choose_threshold(odds, mine.right, precision, spare=2 * frames)
    taken = odds >= setting.threshold
    if single is not None:
        taken &= ~mine.few | (_odds_alone(mine, single) >= 0)
    recall = float(taken[mine.answerable].mean()) if mine.answerable.any() else 0.0
    made = SequenceCalibration(
        frames,
        setting.threshold,
        weights,
        float(np.float32(precision)),
        float(np.float32(recall)),
        dials,
    )
    confidence = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return SequenceReport(
        made,
        len(mine),
        right,
        int(taken.sum()),
        setting.reached,
        quality(confidence, mine.right),
        mine.by_setting(taken),
    )
