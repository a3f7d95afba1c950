"""Render a drive with a loop: one lap around a Freedoom map and a part of a second, by ViZDoom.

Out: a folder of JPEG frames in the order of the drive, with two files of positions as
`tatvpr-edge map build FRAMES --poses FILE` reads them: `poses.csv`, where the camera was, and
`odometry.csv`, where a robot believes it was that adds up its wheels' turns: each step a little
too long, each turn a little to one side. The example that closes loops corrects the second and is
judged by the first.

    python tools/render_drive.py --map e3m5 --seed 4 --output models/zoo/drive

The way leads around something: out, and back another way, over floors without a step that a wheel
could not climb. The second lap is driven a little beside the first, in another light. Poses are
those of tools/render_places.py.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from given import one_line, real
from numpy.typing import NDArray
from render_places import View, Writer, parse_maps, parse_size
from rendering.command import make_parser
from rendering.light import Light
from rendering.paths import Ground, smooth
from rendering.scene import UNITS_PER_METRE, Pose, Scene, Spot, wrap

from tatvpr_edge.spec.errors import DataError, UsageError

#: A step that a wheel climbs, in metres.
STEP_M = 0.75
#: The first lap in metres, at least and at most.
LAP_M = (60, 140)
#: How far beside the first lap the second is driven, in metres.
BESIDE_M = 0.35
TURN_DEG = 4.0


def drivable(scene: Scene) -> Ground:
    """What can be reached from where the map begins."""
    start = scene.where()
    heights: dict[tuple[int, int], float | None] = {}

    def height(cell: tuple[int, int]) -> float | None:
        if cell not in heights:
            x, y = start[0] + 32.0 * cell[0], start[1] + 32.0 * cell[1]
            shot = scene.take(Spot(x, y, 0.0), Light())
            heights[cell] = None if shot is None else shot[0].z
        return heights[cell]

    def same_floor(cell: tuple[int, int], other: tuple[int, int]) -> bool:
        one, two = height(cell), height(other)
        return one is not None and two is not None and abs(one - two) <= STEP_M

    return Ground(scene.walls, start, same_floor)


def drive(
    map_name: str, size: tuple[int, int], spacing_m: float, laps: float, light: float, seed: int
) -> Iterator[tuple[Pose, NDArray[np.uint8]]]:
    """Yield the true pose and the frame of each stop, in order."""
    rng = np.random.default_rng(seed)
    with Scene(map_name, size, seed) as scene:
        way = drivable(scene).loop(rng, *LAP_M)
        if way is None:
            raise DataError(f"{map_name} has no way around anything: try another --map")
        way = smooth(way, spacing_m * UNITS_PER_METRE, 1.5 * UNITS_PER_METRE)
        ahead = np.roll(way, -2, 0) - np.roll(way, 2, 0)
        headings = np.degrees(np.arctan2(ahead[:, 1], ahead[:, 0]))
        worn = Light()
        for step in range(round(laps * len(way))):
            lap, at = divmod(step, len(way))
            if lap and not at:
                worn = Light.draw(rng, light)
            left = math.radians(headings[at] + 90)
            aside = BESIDE_M * UNITS_PER_METRE * rng.uniform(-1, 1) * (lap > 0)
            spot = Spot(
                float(way[at, 0] + aside * math.cos(left)),
                float(way[at, 1] + aside * math.sin(left)),
                float(wrap(headings[at] + rng.uniform(-TURN_DEG, TURN_DEG))),
            )
            shot = scene.take(spot, worn)
            if shot is not None:  # a thing may stand there: the robot drives around it
                yield shot[0], worn.apply(shot[1], rng)


def dead_reckoning(
    poses: list[Pose], scale: float, turn_deg_per_m: float, rng: np.random.Generator
) -> list[Pose]:
    """Where a robot believes it was whose steps are ``scale`` times too long, and which turns
    ``turn_deg_per_m`` without noticing; both with noise of a tenth of that."""
    believed = [poses[0]]
    for before, now in itertools.pairwise(poses):
        length = math.hypot(now.x - before.x, now.y - before.y)
        way = math.atan2(now.y - before.y, now.x - before.x)
        body = way - math.radians(before.heading)
        last = believed[-1]
        length_seen = length * (scale + 0.1 * abs(scale - 1) * rng.standard_normal())
        turn = wrap(now.heading - before.heading)
        turn += length * turn_deg_per_m * (1 + 0.1 * rng.standard_normal())
        course = math.radians(last.heading) + body
        believed.append(
            Pose(
                last.x + length_seen * math.cos(course),
                last.y + length_seen * math.sin(course),
                now.z,
                wrap(last.heading + turn),
                now.pitch,
            )
        )
    return believed


def render(options: argparse.Namespace) -> str:
    """Render what the options say and return the line to print."""
    (map_name, *more), size = parse_maps(options.map), parse_size(options.size)
    if more:
        raise UsageError(f"--map: {options.map!r} names {1 + len(more)} maps: a drive is in one")
    rng = np.random.default_rng([options.seed, 1])
    with Writer(options.output, options.quality, split=False) as writer:
        drawn = drive(map_name, size, options.spacing, options.laps, options.light, options.seed)
        shots = list(drawn)
        poses = [pose for pose, _ in shots]
        believed = dead_reckoning(poses, options.scale, options.turn, rng)
        for index, (pose, frame) in enumerate(shots):
            writer.add(View(f"{index:04d}.jpg", "", map_name, index, pose, frame))
        rows = [
            View(f"{index:04d}.jpg", "", map_name, index, pose, shots[index][1]).row()
            for index, pose in enumerate(believed)
        ]
        writer.table(Path("odometry.csv"), rows)
        writer.finish(options, frames=len(shots))
    end, drifted = poses[-1], believed[-1]
    off = math.hypot(end.x - drifted.x, end.y - drifted.y)
    return f"{len(shots)} frames in {options.output}; odometry ends {off:.1f} m off"


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "160x120", 75)
    add = parser.add_argument
    add("--map", required=True, help="map01 (Freedoom 2) or e1m1 (Freedoom 1)")
    add("--spacing", type=real(0.1, 5), default=0.8, help="metres between frames (0.8)")
    add("--laps", type=real(1.05, 3), default=1.45, help="how far to drive, in laps (1.45)")
    add(
        "--light",
        type=real(0, 1),
        default=0.5,
        help="how much the second lap's light differs (0.5)",
    )
    add(
        "--scale",
        type=real(0.1, 10),
        default=1.03,
        help="odometry's steps, of the true ones (1.03)",
    )
    add(
        "--turn",
        type=real(-90, 90),
        default=0.3,
        help="odometry's unnoticed turn, degrees a metre (0.3)",
    )
    return parser


@one_line
def main(arguments: list[str] | None = None) -> None:
    """Render, and say what there is."""
    print(render(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
