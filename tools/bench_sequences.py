#!/usr/bin/env python3
"""What a path costs a query: ``Localizer.query`` with ``sequence=5`` less the same without.

    python tools/bench_sequences.py [--places 10000] [--rounds 200]

Through the public API: ``micro`` built for this machine, a map of random places a metre apart along
one drive, one thread; first as it is built, then calibrated, where single frames are judged, too.
Prints medians of thread CPU time, taking turns, without and with odometry.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_search import timed
from given import one_line, tool_parser, whole

import tatvpr_edge
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

K = 0.2
FRAMES = 5
#: Any weights cost the same.
JUDGED = Calibration(
    "logistic",
    0.0,
    (0.0, 1.0, 1.0),
    elsewhere_m=12.0,
    sequence=SequenceCalibration(FRAMES, 0.0, (0.0, 1.0, 1.0, 1.0, 1.0, 0.1)),
)


def make_drive(path: Path, artifact: Path, places: int, judged: Calibration | None) -> Path:
    """A map of one drive along a line."""
    model = read_artifact(artifact).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0, 1.0, judged),))
    rows = np.random.default_rng(0).standard_normal((places, model.descriptor_size))
    poses = np.full((places, 7), np.nan)
    poses[:, :2] = np.arange(places)[:, None] * (1.0, 0.0)
    made = make_places(info, [rows.astype(np.float32)], poses, orders=range(places))
    write_map(path, info, [made])
    return path


def measure(artifact: Path, drive: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of one query, by what it is asked with, taking turns."""
    frame = np.random.default_rng(1).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    with (
        Localizer(artifact, drive, k=K) as single,
        Localizer(artifact, drive, k=K, sequence=FRAMES) as path,
        Localizer(artifact, drive, k=K, sequence=FRAMES) as driven,
    ):
        calls = {
            "single": lambda: single.query(frame),
            "sequence": lambda: path.query(frame),
            "odometry": lambda: driven.query(frame, odometry=1.0),
        }
        seen: dict[str, list[float]] = {label: [] for label in calls}
        for turn in range(rounds + 10):
            for label, call in calls.items():
                cpu_ms = timed(call)[0]
                if turn >= 10:
                    seen[label].append(cpu_ms)
    return {label: statistics.median(values) for label, values in seen.items()}


@one_line
def main() -> int:
    """Time both maps."""
    parser = tool_parser(__doc__)
    parser.add_argument("--places", type=whole(2), default=10_000, help="of the map (10000)")
    parser.add_argument("--rounds", type=whole(1), default=200, help="queries of each (200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        artifact = tatvpr_edge.build("host", output=Path(name) / "artifact")
        for label, judged in (("not calibrated", None), ("calibrated", JUDGED)):
            drive = make_drive(Path(name) / "m.placemap", artifact, options.places, judged)
            cost = measure(artifact, drive, options.rounds)
            print(f"{options.places} places, {label}: {cost['single']:.3f} ms a single query")
            for what in ("sequence", "odometry"):
                print(f"  {what}: {cost[what] - cost['single']:+.3f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
