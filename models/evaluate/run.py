"""The evaluation itself: describers x protocols to a table of recall, size and compute."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.neighbours import lent
from tatvpr_edge.models.evaluate.confidence import confidence
from tatvpr_edge.models.evaluate.describers import Describer, Floats, Frames, frames_for, places_of
from tatvpr_edge.models.evaluate.protocols import Trial
from tatvpr_edge.models.evaluate.recall import (
    KINDS,
    RANKS,
    BestPlaces,
    paired_bootstrap,
    recall,
    rows_of,
    scores_of,
    weighed_scores_of,
)
from tatvpr_edge.models.evaluate.stress import stressed
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.scores import nearest_band

Ranks = NDArray[np.int64]

#: Frames timed one by one for the column of milliseconds.
_TIMED_FRAMES = 5
#: Images decoded, and places scored, at once.
_CHUNK = 256
#: Descriptors of a map that are kept from one trial to the next.
_MOST_KEPT_BYTES = 1 << 26
#: Descriptors by k.
ByK = dict[float, Floats]
#: In place of a k: a map at the largest k with all tokens, which fewer tokens are asked of.
WHOLE = math.inf


@dataclass
class Judged:
    """The ranks of one describer under one setting, trial after trial.

    Attributes:
        ranks: for each trial the rank of the first right answer of each query.
        wide: the same under the trial's lenient rule.
        scores: for each trial the best score of each query.
        unknown: the same of the map without what is right for the query by either rule.
    """

    ranks: list[Ranks] = field(default_factory=list)
    wide: list[Ranks] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)
    unknown: list[Floats] = field(default_factory=list)

    def recall(self, at: int) -> float:
        """Mean over trials, in percent."""
        return statistics.fmean(recall(ranks, at) for ranks in self.ranks)

    def hits(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Whether each answerable query was right, and which query it is (the same one under
        several perturbations has one number)."""
        hits = [r[r >= 0] == 0 for r in self.ranks]
        blocks = [np.flatnonzero(r >= 0) for r in self.ranks]
        return np.concatenate(hits), np.concatenate(blocks)


@dataclass
class Result:
    """Everything measured of one describer under one protocol.

    Attributes:
        matched: map and query at the same k; by descriptor kind, then k.
        one_map: map at the largest k with all tokens, query at k, float descriptors.
        two_bands: map at the largest and the smallest k, of which a query at k searches the band
            that a place map would choose; float descriptors.
        queries: how many were asked.
        counted: how many of them have a right answer in the map; recall is a share of these.
        stress: map and query at the same k, float descriptors, for each row of ``stress.py``.
    """

    name: str
    size_mb: float
    macs: dict[float, int]
    milliseconds: dict[float, float]
    matched: dict[str, dict[float, Judged]]
    one_map: dict[float, Judged]
    two_bands: dict[float, Judged]
    queries: int
    counted: int
    stress: dict[str, dict[float, Judged]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: ``["recall@1"]["1.0"]``, the same under ``["int8"]`` and so on."""
        floats = self.matched["float"]
        top = max(floats)
        values: dict[str, Any] = {
            f"recall@{n}": {_key(k): round(j.recall(n), 3) for k, j in floats.items()}
            for n in RANKS
        }
        if floats[top].wide:
            values["recall@1_wide"] = {
                _key(k): round(statistics.fmean(recall(r, 1) for r in j.wide), 3)
                for k, j in floats.items()
            }
        for kind in KINDS[1:]:
            values[kind] = {
                f"recall@{n}": {
                    _key(k): round(j.recall(n), 3) for k, j in self.matched[kind].items()
                }
                for n in RANKS
            }
        for name, judged in (("one_map", self.one_map), ("two_bands", self.two_bands)):
            values[name] = {"recall@1": {_key(k): round(j.recall(1), 3) for k, j in judged.items()}}
        if self.stress:
            values["stress"] = {
                row: {_key(k): round(j.recall(1), 3) for k, j in judged.items()}
                for row, judged in self.stress.items()
            }
        hits, blocks = floats[top].hits()
        values["against_dense"] = {
            _key(k): {
                name: round(value, 3)
                for name, value in asdict(paired_bootstrap(j.hits()[0], hits, blocks)).items()
            }
            for k, j in floats.items()
            if k != top
        }
        values["confidence"] = {
            kind: {_key(k): confidence(j.ranks, j.scores, j.unknown) for k, j in of_kind.items()}
            for kind, of_kind in self.matched.items()
        }
        values["queries"], values["queries_counted"] = self.queries, self.counted
        values["model_mb"] = round(self.size_mb, 4)
        if self.size_mb:
            values["recall_per_mb"] = {
                _key(k): round(j.recall(1) / self.size_mb, 2) for k, j in floats.items()
            }
        values["macs"] = {_key(k): v for k, v in self.macs.items()}
        values["milliseconds"] = {_key(k): round(v, 3) for k, v in self.milliseconds.items()}
        return values


def _key(k: float) -> str:
    return str(float(k))


def evaluate(
    describers: Sequence[Describer],
    trials: Iterator[Trial],
    report: Callable[[str], None] | None = None,
    timed: bool = True,
    stress: bool = False,
    views: bool = True,
) -> dict[str, Result]:
    """Judge all describers on the same trials.

    Args:
        report: told what is being done.
        timed: measure milliseconds of single frames too (they do not repeat exactly).
        stress: judge the rows of ``stress.py`` too, on the first trial.
        views: places are described from several views, as ``map build`` does; False: from one.
    """
    results: dict[str, Result] = {}
    galleries: dict[str, _Gallery] = {}
    for number, trial in enumerate(trials, start=1):
        counted = int(trial.answerable().sum())
        if not counted:
            raise DataError(
                f"none of {len(trial.queries)} queries has a right answer among the "
                f"{len(trial.gallery)} places of the map, so there is no recall: are both of the "
                "same area and in the same pose frame, and is the distance that counts as right "
                "large enough?"
            )
        for describer in describers:
            if report is not None:
                report(f"trial {number}: {describer.name}")
            result = results.setdefault(describer.name, _empty(describer))
            result.queries += len(trial.queries)
            result.counted += counted
            known = galleries.get(describer.name)
            # Trials of one protocol often share their map: describe it once.
            if known is None or not _same(known.images, trial.gallery):
                known = galleries[describer.name] = _Gallery(describer, trial, views)
            _judge(result, trial, known, _describe(describer, trial.queries))
            if timed and not result.milliseconds:
                frames = frames_for(describer, trial.queries[:_TIMED_FRAMES])
                result.milliseconds = {k: _milliseconds(describer, frames, k) for k in describer.ks}
        if stress and number == 1:
            _stress(describers, trial, results, galleries, views, report)
    return results


def _stress(
    describers: Sequence[Describer],
    trial: Trial,
    results: dict[str, Result],
    galleries: dict[str, _Gallery],
    views: bool,
    report: Callable[[str], None] | None,
) -> None:
    """The stress rows of one trial, whose maps have been described already."""
    for row, changed in stressed(trial):
        if report is not None:
            report(f"stress: {row}")
        for describer in describers:
            gallery = galleries[describer.name]
            if not _same(gallery.images, changed.gallery):
                gallery = _Gallery(describer, changed, views)
            judged = _empty(describer)
            _judge(judged, changed, gallery, _describe(describer, changed.queries))
            results[describer.name].stress[row] = judged.matched["float"]


class _Gallery:
    """The places of a map in pieces, described when they are first needed.

    Pieces are kept for the next trial where they are no more than memory is for.
    """

    def __init__(self, describer: Describer, trial: Trial, views: bool) -> None:
        self.images = trial.gallery
        self._linked = trial.linked if views else None
        self._views = views
        self._describer = describer
        self._kept: list[tuple[slice, ByK]] = []

    @property
    def whole(self) -> bool:
        """Whether its places, and the queries, are described with all tokens."""
        return self._describer.tokens >= 1

    def pieces(self) -> Iterator[tuple[slice, ByK]]:
        """(which places, their descriptors by k), in order."""
        if self._kept:
            yield from self._kept
            return
        made: list[tuple[slice, ByK]] = []
        for piece in self._leaning(self._alone()):
            each = sum(rows.nbytes // len(rows) for rows in piece[1].values())
            if each * len(self.images) <= _MOST_KEPT_BYTES:
                made.append(piece)
            yield piece
        self._kept = made

    def _alone(self) -> Iterator[tuple[slice, ByK]]:
        """Places as they are described, whatever stands beside them."""
        asked: dict[float, tuple[float, float | None]] = {k: (k, None) for k in self._describer.ks}
        if self._describer.tokens < 1:
            asked[WHOLE] = max(self._describer.ks), 1.0
        for start in range(0, len(self.images), _CHUNK):
            which = slice(start, min(start + _CHUNK, len(self.images)))
            rows = places_of(self._describer, self.images[which], list(asked.values()), self._views)
            yield which, dict(zip(asked, rows, strict=True))

    def _leaning(self, alone: Iterator[tuple[slice, ByK]]) -> Iterator[tuple[slice, ByK]]:
        """With their parts of their neighbours', of which one may lie in the next piece."""
        if self._linked is None:
            yield from alone
            return
        before, now = None, next(alone, None)
        while now is not None:
            behind = next(alone, None)
            (which, rows), made = now, {}
            first, last = before is not None, behind is not None
            linked = self._linked[which.start - first : which.stop - 1 + last]
            for k, own in rows.items():
                parts = [own]
                if before is not None:
                    parts.insert(0, before[1][k][-1:])
                if behind is not None:
                    parts.append(behind[1][k][:1])
                joined = lent(np.concatenate(parts), linked)
                made[k] = joined[first : len(joined) - last]
            yield which, made
            before, now = now, behind


def _same(a: object, b: Sequence[object]) -> bool:
    """Whether two galleries hold the very same images; never decodes any."""
    if a is b:
        return True
    if not (isinstance(a, list) and isinstance(b, list)):
        return False
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _empty(describer: Describer) -> Result:
    return Result(
        name=describer.name,
        size_mb=describer.size_mb,
        macs={k: describer.macs(k) for k in describer.ks},
        milliseconds={},
        matched={kind: {k: Judged() for k in describer.ks} for kind in KINDS},
        one_map={k: Judged() for k in describer.ks},
        two_bands={k: Judged() for k in describer.ks},
        queries=0,
        counted=0,
    )


def _describe(describer: Describer, images: Sequence[Any]) -> ByK:
    parts: dict[float, list[Floats]] = {k: [] for k in describer.ks}
    for start in range(0, len(images), _CHUNK):
        frames = frames_for(describer, images[start : start + _CHUNK])
        for k in describer.ks:
            parts[k].append(describer.describe(frames, k))
    return {k: np.concatenate(part) for k, part in parts.items()}


@dataclass(frozen=True)
class _Setting:
    """One column of the table: where its ranks go, and by which scores: the kind of descriptor,
    the query's k and the map's."""

    judged: Judged
    scores: tuple[str, float, float]


def _settings(result: Result, ks: Sequence[float], whole: bool) -> list[_Setting]:
    """``whole``: queries keep all tokens, as the one map for all of them does."""
    dense, bands = max(ks) if whole else WHOLE, (max(ks), min(ks))
    made = []
    for k in ks:
        made += [_Setting(result.matched[kind][k], (kind, k, k)) for kind in KINDS]
        made.append(_Setting(result.one_map[k], ("float", k, dense)))
        # Map and queries keep the same tokens: k alone decides.
        band = bands[nearest_band([(b, 1.0) for b in bands], k, 1.0)]
        made.append(_Setting(result.two_bands[k], ("float", k, band)))
    return made


def _judge(result: Result, trial: Trial, gallery: _Gallery, queries: ByK) -> None:
    settings = _settings(result, list(queries), gallery.whole)
    truths = 1 if trial.right_wide is None else 2
    # Several columns of the table rank by the same scores, so they share what was found.
    count = len(trial.queries)
    found = {
        s.scores: [BestPlaces(count, weighed=s.scores[0] == "weighed") for _ in range(truths)]
        for s in settings
    }
    asked = {(kind, k): rows_of(queries[k], kind) for k in queries for kind in KINDS}
    # The same queries of a map that lacks their places: by matched k alone.
    unknown = {
        key: BestPlaces(count, 1, weighed=key[0] == "weighed") for key in found if key[1] == key[2]
    }
    for which, places in gallery.pieces():
        allowed = None if trial.allowed is None else trial.allowed[:, which]
        right = [trial.right_in(which, wide=bool(wide)) for wide in range(truths)]
        elsewhere = ~np.logical_or.reduce(right)
        if allowed is not None:
            elsewhere &= allowed
        stored = {(kind, k): rows_of(places[k], kind) for k in places for kind in KINDS}
        for (kind, query_k, map_k), best in found.items():
            mine, theirs = asked[kind, query_k], stored[kind, map_k]
            scores = scores_of(mine, theirs, kind)
            weighed = weighed_scores_of(mine, theirs) if kind == "weighed" else None
            for own, truth in zip(best, right, strict=True):
                own.add(scores, truth, allowed, weighed)
            if query_k == map_k:
                unknown[kind, query_k, map_k].add(scores, right[0], elsewhere, weighed)
    for every in (*found.values(), unknown.values()):
        for own in every:
            own.finish()
    for setting in settings:
        strict, *wide = found[setting.scores]
        setting.judged.ranks.append(strict.ranks())
        setting.judged.wide += [best.ranks() for best in wide]
        if setting.scores in unknown:
            setting.judged.scores.append(strict.scores[:, 0])
            setting.judged.unknown.append(unknown[setting.scores].scores[:, 0])


def _milliseconds(describer: Describer, frames: Frames, k: float) -> float:
    """Median time of one frame, after one that warms up."""
    describer.describe(frames[:1], k)
    times = []
    for i in range(len(frames)):
        began = time.perf_counter()
        describer.describe(frames[i : i + 1], k)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)
