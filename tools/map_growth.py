#!/usr/bin/env python3
"""A long drive into a map that may not grow beyond some bytes, through the public API.

    python tools/map_growth.py [--frames 100000] [--max-mb 16] [--novelty 0.9] [--json]

A robot drives laps on a few courses, each lap slightly elsewhere and under other light; every frame
is offered to the map by ``Localizer.add``. Descriptors are made here, smooth along a course: frames
would only make it slower. Prints what the map holds at the end, what it costs to add at the
beginning and at the end, and coverage: how often a frame of a last lap on the courses that were
driven, which is not added, has a place within two metres on its course as the best match.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from given import as_json, one_line, real, tool_parser, whole
from numpy.typing import NDArray

import tatvpr_edge
from tatvpr_edge.runtime import Localizer, MapWriter

COURSES, KNOTS_M, STEP_M = 40, 4.0, 0.5
NEAR_M = 2.0


class World:
    """Courses of random looks, one every ``KNOTS_M`` metres, blended in between."""

    def __init__(self, size: int, length_m: float) -> None:
        self.length_m = length_m
        self._rng = np.random.default_rng(0)
        knots = int(length_m / KNOTS_M) + 2
        self._looks = self._rng.standard_normal((COURSES, knots, size)).astype(np.float32)

    def descriptor(self, course: int, at_m: float, light: NDArray[np.float32]) -> Any:
        """float32 [size] at ``at_m`` of a course."""
        knot, part = divmod(at_m / KNOTS_M, 1.0)
        a, b = self._looks[course, int(knot)], self._looks[course, int(knot) + 1]
        noise = self._rng.standard_normal(len(a)).astype(np.float32)
        look = a * (1 - part) + b * part + light + 0.2 * noise
        return look / np.linalg.norm(look)

    def light(self) -> NDArray[np.float32]:
        """What changes from lap to lap."""
        size = self._looks.shape[2]
        made: NDArray[np.float32] = 0.3 * self._rng.standard_normal(size).astype(np.float32)
        return made


def built(output: Path) -> Path:
    """``micro`` for this machine, by a process of its own: a compiler's memory is no robot's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as builder:
        return builder.submit(tatvpr_edge.build, "host", model="micro", output=output).result()


def peak_bytes() -> int:
    """Of resident memory (``ru_maxrss`` would count what started this process as well)."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def drive(arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole of it."""
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        artifact = arguments.artifact or built(folder / "artifact")
        robot = held.enter_context(Localizer(artifact, k=1.0))
        path = folder / "drive.placemap"
        MapWriter(path, robot).close()
        robot.map = path
        world = World(robot.descriptor_size, length_m=600.0)
        steps = int(world.length_m / STEP_M)
        costs: list[float] = []
        added = dropped = offered = 0
        while offered < arguments.frames:
            course = offered // steps % COURSES
            light = world.light()
            for step in range(min(steps, arguments.frames - offered)):
                row = world.descriptor(course, step * STEP_M, light)
                start = time.perf_counter()
                done = robot.add(
                    row,
                    (step * STEP_M, 10.0 * course),
                    f"{course:02d}/{step:04d}",
                    novelty=arguments.novelty,
                    max_bytes=int(arguments.max_mb * 1e6),
                )
                costs.append(time.perf_counter() - start)
                added += done.place is not None
                dropped += done.dropped
                offered += 1
        assert robot.map is not None
        covered = asked = 0
        for course in range(min(COURSES, -(-offered // steps))):
            light = world.light()
            for step in range(0, min(steps, offered - course * steps), 20):
                found = robot.map.search(world.descriptor(course, step * STEP_M, light), 1.0)
                pose = found.candidates[0].pose
                right = pose is not None and abs(pose[0] - step * STEP_M) <= NEAR_M
                covered += right and pose is not None and abs(pose[1] - 10.0 * course) < 1
                asked += 1
        return {
            "offered": offered,
            "added": added,
            "dropped": dropped,
            "places": len(robot.map),
            "megabytes": robot.map.file_bytes / 1e6,
            "coverage": covered / asked,
            "add_first_1000_us": 1e6 * statistics.median(costs[:1000]),
            "add_last_1000_us": 1e6 * statistics.median(costs[-1000:]),
            "slowest_add_ms": 1e3 * max(costs),
            "peak_rss_mb": peak_bytes() / 1e6,
        }


@one_line
def main(arguments: list[str] | None = None) -> int:
    """Drive and print."""
    parser = tool_parser(__doc__)
    parser.add_argument("--frames", type=whole(1), default=100_000)
    parser.add_argument("--max-mb", type=real(0.065536, 1e6), default=16.0)
    parser.add_argument("--novelty", type=real(-1, 1), default=0.9)
    parser.add_argument("--artifact", type=Path, help="instead of building micro for this machine")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = drive(given)
    if given.json:
        print(as_json(found))
    else:
        print(
            f"{found['offered']} frames offered, {found['added']} added, {found['dropped']} "
            f"pruned: {found['places']} places, {found['megabytes']:.2f} MB; "
            f"coverage {100 * found['coverage']:.1f} %"
        )
        print(
            f"an add takes {found['add_first_1000_us']:.0f} us at first, "
            f"{found['add_last_1000_us']:.0f} us at the end (with its search), at most "
            f"{found['slowest_add_ms']:.0f} ms (pruning); peak memory {found['peak_rss_mb']:.0f} MB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
