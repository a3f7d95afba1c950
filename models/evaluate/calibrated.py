"""What a calibration is worth on floors that it never saw: tower-shift, single and in order.

In: an artifact of this machine and the data set of tower-shift (docs/evaluation.md). Every floor in
turn is left out: the others' queries calibrate a map of all floors, the floor's own are judged by
it. Each query is asked of the whole map, and of the map without its floor, where no answer is
right. One calibration a map serves every k, as on a robot. For ``evaluate --sequence`` and
``tools/calibration_figures.py``.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate import ask, fit_band
from tatvpr_edge.mapping.calibrate_answers import Answers
from tatvpr_edge.mapping.calibrate_queries import Asked, Truth
from tatvpr_edge.mapping.calibrate_sequences import ask_sequences, fit_sequences
from tatvpr_edge.mapping.logistic import quality
from tatvpr_edge.mapping.neighbours import lent
from tatvpr_edge.models.data.formats import tower_rows
from tatvpr_edge.models.evaluate.protocols import GALLERY_EVERY, WITHIN_FRAMES, tower_shift
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.views import describe_place
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

#: Clips stand this far apart on one line, metres; a frame is a metre from the next.
_CLIP_M = 10_000.0


@dataclass(frozen=True)
class Frames:
    """Frames of tower-shift in its own order: floor, number of the clip, place on the line."""

    floor: NDArray[np.str_]
    clip: NDArray[np.int64]
    poses: NDArray[np.float64]


def on_a_line(data: Path, floors: Sequence[str] | None = None) -> tuple[Frames, Frames]:
    """(gallery, queries): positions that say what tower-shift says of right and wrong."""
    chosen = tower_rows(data, "val" if floors is None else "train", floors)
    gallery: list[tuple[str, int, float]] = []
    queries: list[tuple[str, int, float]] = []
    clips = itertools.groupby(chosen, key=lambda row: (row["floor"], row["clip"]))
    for number, (_, clip) in enumerate(clips):
        for index, row in enumerate(clip):
            at = number * _CLIP_M + int(row["frame"])
            side = queries if index % GALLERY_EVERY else gallery
            side.append((row["floor"], number, at))
    return _frames(gallery), _frames(queries)


def _frames(found: Sequence[tuple[str, int, float]]) -> Frames:
    poses = np.full((len(found), 7), np.nan)
    poses[:, 0], poses[:, 1] = [at for _, _, at in found], 0.0
    floors, clips = [floor for floor, _, _ in found], [clip for _, clip, _ in found]
    return Frames(np.array(floors), np.array(clips), poses)


@dataclass(frozen=True)
class Described:
    """The descriptors of tower-shift.

    Attributes:
        places: float32 [gallery, D], at k = 1.
        queries: by k, one float32 [queries, D] a trial.
    """

    places: NDArray[np.float32]
    queries: dict[float, list[NDArray[np.float32]]]


def describe(
    localizer: Localizer,
    data: Path,
    ks: Sequence[float],
    trials: int,
    floors: Sequence[str] | None = None,
    views: bool = True,
) -> Described:
    """Describe map and queries, trial after trial; a place as ``map build`` does it, or, without
    ``views``, from its frame alone."""
    places = None
    made: dict[float, list[NDArray[np.float32]]] = {k: [] for k in ks}
    for trial in itertools.islice(tower_shift(data, floors), trials):
        if places is None:
            frames = [check_frame(np.asarray(image)) for image in trial.gallery]
            describe = localizer.backend.describe
            lowest = localizer.artifact.manifest.k_range[0]
            places = np.stack(
                [
                    describe_place(describe, f, [(1.0, 1.0)], lowest)[0]
                    if views
                    else describe(f, 1.0, 1.0)
                    for f in frames
                ]
            )
            if views and trial.linked is not None:
                places = lent(places, trial.linked)
        for k in ks:
            rows = [localizer.describe(np.asarray(image), k=k) for image in trial.queries]
            made[k].append(np.stack(rows))
    assert places is not None
    return Described(places, made)


class Tower:
    """A map of tower-shift, and its queries floor by floor.

    Args:
        localizer: whose code searches and follows.
        kind: of the map, one of ``spec.maptypes.KINDS``.
    """

    def __init__(
        self,
        localizer: Localizer,
        kind: str,
        gallery: Frames,
        queries: Frames,
        described: Described,
    ) -> None:
        model = localizer.artifact.manifest.model
        self.engine = Engine.of(localizer.artifact)
        info = MapInfo(model.hash, kind, model.descriptor_size, (Band(1.0),))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tower.placemap"
            places = make_places(info, [described.places], gallery.poses, drives=gallery.clip)
            write_map(path, info, [places])
            self.map = PlaceMap(path, model, self.engine)
        self.truth = Truth(self.map, WITHIN_FRAMES, 1)
        self.floors: list[str] = np.unique(queries.floor).tolist()
        self._gallery, self._queries, self._described = gallery, queries, described

    def asked(self, floor: str) -> list[Asked]:
        """The queries of one floor, clip by clip in each trial; around them lies the floor."""
        around = self._gallery.floor == floor
        own: list[int] = np.flatnonzero(self._queries.floor == floor).tolist()
        near = {index: self.truth.of_position(self._queries.poses[index])[0] for index in own}
        made = []
        for k, trials in self._described.queries.items():
            for number, rows in enumerate(trials):
                for index in own:
                    drive = len(self._queries.clip) * number + int(self._queries.clip[index])
                    made.append(Asked(rows[index], k, 1.0, near[index], around, drive=drive))
        return made


def judge(tower: Tower, precision: float) -> dict[float, dict[str, float]]:
    """By k: precision, shares accepted and quality of single frames, pooled over floors left out
    in turn: each is judged by what the others teach."""
    by_floor = {floor: ask(tower.map, tower.truth, tower.asked(floor)) for floor in tower.floors}
    odds, limits = [], []
    for floor, own in by_floor.items():
        rest = Answers.joined([answers for name, answers in by_floor.items() if name != floor])
        made = fit_band(tower.map, tower.truth, rest, 0, precision).calibration
        odds.append(own.odds(made.weights, made.dials))
        limits.append(np.full(len(own), made.threshold))
    return figures(
        Answers.joined(list(by_floor.values())), np.concatenate(odds), np.concatenate(limits)
    )


def judge_sequences(tower: Tower, frames: int, precision: float) -> dict[float, dict[str, float]]:
    """The same of sequences: learned as ``map calibrate`` learns, judged on whole clips played in
    order."""
    judging = tower.truth.judging(tower.map)
    taught, own = {}, {}
    for floor in tower.floors:
        asked = tower.asked(floor)
        taught[floor] = ask_sequences(judging, tower.engine, asked, frames)
        own[floor] = ask_sequences(judging, tower.engine, asked, frames, whole=True)
    odds, limits = [], []
    for floor in tower.floors:
        rest = Answers.joined([taught[name] for name in tower.floors if name != floor])
        report = fit_sequences(rest, 0, frames, precision)
        if report is None:
            raise DataError(f"the floors beside {floor} give too few answers to learn from")
        learned = report.calibration
        judged = own[floor].odds(learned.weights, learned.dials)
        odds.append(judged)
        limits.append(np.full(len(own[floor]), report.calibration.threshold))
    answers = Answers.joined([own[floor] for floor in tower.floors])
    return figures(answers, np.concatenate(odds), np.concatenate(limits))


def figures(
    answers: Answers, odds: NDArray[np.float64], limits: NDArray[np.float64]
) -> dict[float, dict[str, float]]:
    """The row of each k."""
    confidence, taken = 1 / (1 + np.exp(-np.clip(odds, -500, 500))), odds >= limits
    rows = {}
    for k in sorted(set(answers.k.tolist()), reverse=True):
        at = answers.k == k
        known = at & answers.answerable
        measured = quality(confidence[at], answers.right[at])
        only_known = quality(confidence[known], answers.right[known])
        accepted = int((at & taken).sum())
        right = int((at & taken & answers.right).sum())
        rows[k] = {
            "answers": int(at.sum()),
            "recall@1": float(answers.right[known].mean()),
            "accepted": accepted,
            "precision": right / accepted if accepted else float("nan"),
            "accepted_of_answerable": float(taken[known].mean()),
            "accepted_of_unknown": float(taken[at & ~answers.answerable].mean()),
            "auroc": measured.auroc,
            "auroc_of_answerable": only_known.auroc,
            "average_precision": measured.average_precision,
            "recall_at_full_precision": measured.recall_at_full_precision,
            "ece": measured.ece,
        }
    return rows
