"""What each kind of map finds: the table of docs/placemap-log.md, Kinds of map.

    python tools/map_kinds.py FOLDER ... --artifact ARTIFACT [--json FILE]

In: folders in the form of the protocols rendered (``poses.csv``) or tower-shift (``frames.csv``).
A map of each kind is made by ``MapWriter``, places from several views at k = 1, and asked by
``Localizer.query`` at each k. Out: Recall@1 of queries whose place is in the map, percent
(places that show no structure are not taken up).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from given import one_line, target, tool_parser, write_json
from numpy.typing import NDArray

from tatvpr_edge.models.evaluate.protocols import Trial, rendered, tower_shift
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.maptypes import KINDS

KS = (1.0, 0.4, 0.2)


def found(localizer: Localizer, trial: Trial, held: NDArray[np.bool_]) -> list[bool]:
    """Whether the best place of each query is right, of those with a right place that the map
    holds; a place's tag is its number."""
    right: NDArray[np.bool_] = np.asarray(trial.right) & held
    return [
        bool(row[int(localizer.query(np.asarray(image)).tag)])
        for image, row in zip(trial.queries, right, strict=True)
        if row.any()
    ]


def recalls(artifact: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Recall@1 by kind and k."""
    tower = (folder / "frames.csv").is_file()
    trials = list(tower_shift(folder) if tower else rendered(folder))
    made: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            path = Path(name) / f"{kind}.placemap"
            writer = MapWriter(path, artifact, kind=kind, views=True)
            held = np.ones(len(trials[0].gallery), np.bool_)
            for number, image in enumerate(trials[0].gallery):
                try:
                    writer.add(np.asarray(image), tag=str(number))
                except FrameError:
                    held[number] = False
            if not held.all():
                without = f"{(~held).sum()} of {len(held)} places show no structure"
                print(f"{folder.name}, {kind}: {without} and are left out", file=sys.stderr)
            made[kind] = {}
            for k in KS:
                with Localizer(artifact, path, k=k) as localizer:
                    hits = [hit for trial in trials for hit in found(localizer, trial, held)]
                made[kind][f"{k:g}"] = 100 * float(np.mean(hits))
    return made


@one_line
def main() -> None:
    """Measure, and print a line for each folder and kind."""
    parser = tool_parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--json", type=target())
    options = parser.parse_args()
    document = {}
    for folder in options.folders:
        document[str(folder)] = recalls(options.artifact, folder)
        for kind, row in document[str(folder)].items():
            shown = ", ".join(f"k = {k}: {value:.1f}" for k, value in row.items())
            print(f"{folder.name}, {kind}: {shown}", flush=True)
    if options.json:
        write_json(options.json, document)


if __name__ == "__main__":
    sys.exit(main())
