"""What a calibration is worth on floors that it never saw: the table of docs/placemap.md.

In: an artifact of this machine and the data set of tower-shift (docs/evaluation.md). Every
validation floor in turn is left out: the others' queries calibrate a map of all floors, the floor's
own are judged by it. Each query is asked of the whole map, and of the map without its floor, where
no answer is right. One calibration a map serves every k, as on a robot.

    python tools/calibration_figures.py --data FOLDER --artifact ARTIFACT [--precision .8]
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.calibrate import KS, Answers, Asked, Truth, ask, fit_band
from tatvpr_edge.mapping.logistic import log_odds, quality
from tatvpr_edge.mapping.table import read_table
from tatvpr_edge.models.evaluate.protocols import GALLERY_EVERY, WITHIN_FRAMES, tower_shift
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

#: Clips stand this far apart on one line, metres; a frame is a metre from the next.
_CLIP_M = 10_000.0


@dataclass(frozen=True)
class Frames:
    """Frames of tower-shift in its own order: floor, and place on the line."""

    floor: NDArray[np.str_]
    poses: NDArray[np.float64]


def on_a_line(data: Path) -> tuple[Frames, Frames]:
    """(gallery, queries): positions that say what tower-shift says of right and wrong."""
    rows = read_table(data / "frames.csv", ("path", "split", "floor", "clip", "frame")).rows
    chosen = sorted(
        (row for row in rows if row["split"] == "val"),
        key=lambda row: (row["floor"], row["clip"], int(row["frame"])),
    )
    gallery: list[tuple[str, float]] = []
    queries: list[tuple[str, float]] = []
    clips = itertools.groupby(chosen, key=lambda row: (row["floor"], row["clip"]))
    for number, (_, clip) in enumerate(clips):
        for index, row in enumerate(clip):
            at = number * _CLIP_M + int(row["frame"])
            (queries if index % GALLERY_EVERY else gallery).append((row["floor"], at))
    return _frames(gallery), _frames(queries)


def _frames(found: Sequence[tuple[str, float]]) -> Frames:
    poses = np.full((len(found), 7), np.nan)
    poses[:, 0], poses[:, 1] = [at for _, at in found], 0.0
    return Frames(np.array([floor for floor, _ in found]), poses)


def joined(parts: Sequence[Answers]) -> Answers:
    """All answers of several."""
    names = ("band", "k", "scores", "margins", "right", "answerable")
    return Answers(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def judge(
    localizer: Localizer,
    kind: str,
    gallery: Frames,
    places: NDArray[np.float32],
    queries: Frames,
    described: dict[float, list[NDArray[np.float32]]],
    precision: float,
) -> dict[float, dict[str, float]]:
    """By k: precision, shares accepted and quality, pooled over floors left out in turn.

    Args:
        places: float32 [gallery, D], at k = 1.
        described: by k, one float32 [queries, D] a trial.
        precision: that the threshold is chosen for.
    """
    model = localizer.artifact.manifest.model
    info = MapInfo(model.hash, kind, model.descriptor_size, (Band(1.0),))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.placemap"
        write_map(path, info, [make_places(info, [places], gallery.poses)])
        place_map = PlaceMap(path, model, Engine.of(localizer.artifact))
    truth = Truth(place_map, WITHIN_FRAMES, 1)
    by_floor: dict[str, Answers] = {}
    for floor in np.unique(queries.floor).tolist():
        asked = []
        for index in np.flatnonzero(queries.floor == floor):
            near, _ = truth.of_position(queries.poses[index])
            for k, trials in described.items():
                for trial in trials:
                    asked.append(Asked(trial[index], k, 1.0, near, gallery.floor == floor))
        by_floor[floor] = ask(place_map, truth, asked)
    held, odds, limits = [], [], []
    for floor, own in by_floor.items():
        rest = joined([answers for name, answers in by_floor.items() if name != floor])
        made = fit_band(place_map, truth, rest, 0, precision).calibration
        held.append(own)
        odds.append(log_odds(made.weights, own.scores, own.margins))
        limits.append(np.full(len(own), made.threshold))
    return figures(joined(held), np.concatenate(odds), np.concatenate(limits))


def figures(
    answers: Answers, odds: NDArray[np.float64], limits: NDArray[np.float64]
) -> dict[float, dict[str, float]]:
    """The row of each k."""
    confidence, taken = 1 / (1 + np.exp(-odds)), odds >= limits
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


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--precision", type=float, default=0.95)
    parser.add_argument("--kinds", default="int8,binary", help="of the map")
    options = parser.parse_args()
    gallery, queries = on_a_line(options.data)
    described: dict[float, list[NDArray[np.float32]]] = {k: [] for k in KS}
    with Localizer(options.artifact) as localizer:
        places = None
        for trial in itertools.islice(tower_shift(options.data), options.trials):
            if places is None:
                places = np.stack(
                    [localizer.describe(np.asarray(image), k=1.0) for image in trial.gallery]
                )
            for k in KS:
                rows = [localizer.describe(np.asarray(image), k=k) for image in trial.queries]
                described[k].append(np.stack(rows))
        assert places is not None
        document = {
            kind: judge(localizer, kind, gallery, places, queries, described, options.precision)
            for kind in options.kinds.split(",")
        }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
