"""The evaluation itself: describers x protocols to a table of recall, size and compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.models.evaluate.describers import Describer, Floats, Frames, frames_for
from tatvpr_edge.models.evaluate.protocols import Trial
from tatvpr_edge.models.evaluate.recall import (
    KINDS,
    RANKS,
    paired_bootstrap,
    ranks_of_right,
    recall,
    similarity,
)
from tatvpr_edge.spec.scores import nearest_band

Ranks = NDArray[np.int64]

#: Frames timed one by one for the column of milliseconds.
_TIMED_FRAMES = 5
#: Images decoded at once.
_CHUNK = 256


@dataclass
class Judged:
    """The ranks of one describer under one setting, trial after trial.

    Attributes:
        ranks: for each trial the rank of the first right answer of each query.
        wide: the same under the trial's lenient rule.
    """

    ranks: list[Ranks] = field(default_factory=list)
    wide: list[Ranks] = field(default_factory=list)

    def add(self, scores: Floats, trial: Trial) -> None:
        """Judge one trial."""
        self.ranks.append(ranks_of_right(scores, trial.right, trial.allowed))
        if trial.right_wide is not None:
            self.wide.append(ranks_of_right(scores, trial.right_wide, trial.allowed))

    def recall(self, at: int) -> float:
        """Mean over trials, in percent."""
        return statistics.fmean(recall(ranks, at) for ranks in self.ranks)

    def recall_wide(self, at: int) -> float | None:
        """The same under the lenient rule; None if the protocol has none."""
        return statistics.fmean(recall(r, at) for r in self.wide) if self.wide else None

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
        one_map: map at k = 1, query at k, float descriptors.
        two_bands: map at the largest and the smallest k, of which a query at k searches the band
            that a place map would choose; float descriptors.
    """

    name: str
    size_mb: float
    macs: dict[float, int]
    milliseconds: dict[float, float]
    matched: dict[str, dict[float, Judged]]
    one_map: dict[float, Judged]
    two_bands: dict[float, Judged]
    queries: int

    def to_json(self) -> dict[str, Any]:
        """Plain values: ``["recall@1"]["1.0"]``, the same under ``["int8"]`` and ``["binary"]``."""
        floats = self.matched["float"]
        top = max(floats)
        values: dict[str, Any] = {
            f"recall@{n}": {_key(k): round(j.recall(n), 3) for k, j in floats.items()}
            for n in RANKS
        }
        if floats[top].wide:
            values["recall@1_wide"] = {
                _key(k): round(j.recall_wide(1) or 0.0, 3) for k, j in floats.items()
            }
        for kind in ("int8", "binary"):
            values[kind] = {
                f"recall@{n}": {
                    _key(k): round(j.recall(n), 3) for k, j in self.matched[kind].items()
                }
                for n in RANKS
            }
        for name, judged in (("one_map", self.one_map), ("two_bands", self.two_bands)):
            values[name] = {"recall@1": {_key(k): round(j.recall(1), 3) for k, j in judged.items()}}
        hits, blocks = floats[top].hits()
        values["against_dense"] = {
            _key(k): _rounded(asdict(paired_bootstrap(j.hits()[0], hits, blocks=blocks)))
            for k, j in floats.items()
            if k != top
        }
        values["queries"] = self.queries
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


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def evaluate(
    describers: Sequence[Describer],
    trials: Iterator[Trial],
    report: Callable[[str], None] | None = None,
    timed: bool = True,
) -> dict[str, Result]:
    """Judge all describers on the same trials.

    Args:
        report: told what is being done.
        timed: measure milliseconds of single frames too (they do not repeat exactly).
    """
    results: dict[str, Result] = {}
    galleries: dict[str, tuple[object, dict[float, Floats]]] = {}
    for number, trial in enumerate(trials, start=1):
        for describer in describers:
            if report is not None:
                report(f"trial {number}: {describer.name}")
            result = results.setdefault(describer.name, _empty(describer))
            known = galleries.get(describer.name)
            # Trials of one protocol often share their map: describe it once.
            same = known is not None and _same(known[0], trial.gallery)
            gallery = known[1] if known and same else _describe(describer, trial.gallery)
            galleries[describer.name] = (trial.gallery, gallery)
            queries = (
                gallery if trial.queries is trial.gallery else _describe(describer, trial.queries)
            )
            _judge(result, trial, queries, gallery)
            if timed and not result.milliseconds:
                frames = frames_for(describer, trial.queries[:_TIMED_FRAMES])
                result.milliseconds = {k: _milliseconds(describer, frames, k) for k in describer.ks}
    return results


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
    )


def _describe(describer: Describer, images: Sequence[Any]) -> dict[float, Floats]:
    parts: dict[float, list[Floats]] = {k: [] for k in describer.ks}
    for start in range(0, len(images), _CHUNK):
        frames = frames_for(describer, images[start : start + _CHUNK])
        for k in describer.ks:
            parts[k].append(describer.describe(frames, k))
    return {k: np.concatenate(part) for k, part in parts.items()}


def _judge(
    result: Result, trial: Trial, queries: dict[float, Floats], gallery: dict[float, Floats]
) -> None:
    dense = max(gallery)
    bands = (dense, min(gallery))
    result.queries += len(trial.queries)
    for k in queries:
        for kind in KINDS:
            result.matched[kind][k].add(similarity(queries[k], gallery[k], kind), trial)
        result.one_map[k].add(similarity(queries[k], gallery[dense]), trial)
        # Map and queries keep the same tokens: k alone decides.
        band = bands[nearest_band([(b, 1.0) for b in bands], k, 1.0)]
        result.two_bands[k].add(similarity(queries[k], gallery[band]), trial)


def _milliseconds(describer: Describer, frames: Frames, k: float) -> float:
    """Median time of one frame, after one that warms up."""
    describer.describe(frames[:1], k)
    times = []
    for i in range(len(frames)):
        began = time.perf_counter()
        describer.describe(frames[i : i + 1], k)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)
