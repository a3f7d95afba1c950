"""Render places with ground-truth poses: Freedoom maps, drawn headless by ViZDoom.

In: the names of maps, how many places and views of each, a seed. Out: a folder of JPEG frames
with `poses.csv` beside them, as `tatvpr-edge map build FRAMES --poses FILE` reads it. Training
sets, evaluation sets and the demo's own frames come from here.

    python tools/render_places.py --maps map01-map24 --places 80 --views 5 --seed 1 \
        --size 192x144 --output runs/rendered_train

A *place* is a spot and a heading. Its view 0 is taken there in the map's own light; the others
differ in position, heading, pitch and light:

* the engine's own light: `r_visibility`, how fast light falls off with distance from the camera;
* the camera's: exposure, gamma, colour cast and noise, applied to the pixels (see `Light`).

Poses are in metres (32 map units = 1 m), x east, y north, z up, and each map has its own origin.
The quaternion turns the camera's axes (x forward, y left, z up) into the map's:
q = Rz(yaw) Ry(pitch), pitch positive when the camera looks down.

The same arguments give the same frames, whatever other maps are rendered with a map; `--split`,
`--only` and `--quality` choose no other places. (JPEG bytes also depend on Pillow's version.)
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from given import one_line, real, whole
from numpy.typing import NDArray
from PIL import Image
from rendering.command import make_parser, new_set
from rendering.light import Light
from rendering.scene import UNITS_PER_METRE, Pose, Scene, Spot, wrap

from tatvpr_edge.spec.errors import DataError, UsageError

POSE_FIELDS = ("name", "place", "map", "x", "y", "z", "qx", "qy", "qz", "qw")

# What makes a spot a place worth recognising. Lengths are in map units.
CLEARANCE = 24.0  # to walls: the player is 16 wide on each side
THING_CLEARANCE = 44.0  # to things: nearer, the player would pick them up
WANDER = 224.0  # how far from a known reachable thing a spot may lie
OPEN_VIEW = 176.0  # least median distance to walls inside the field of view
APART = 160.0  # two places of a map are further apart than this, or ...
APART_DEG = 75.0  # ... look at least this far away from each other
STEP = 40.0  # views of one place lie on floors within this height
LEAST_CONTRAST = 16.0  # standard deviation of view 0's grey levels
LEAST_EDGES = 4.5  # mean absolute grey step between neighbours of a 64-pixel-wide thumbnail


@dataclass(frozen=True)
class Jitter:
    """How far views of a place lie from its first: map units and degrees."""

    radius: float = 32.0
    heading: float = 12.0
    pitch: float = 4.0


@dataclass(frozen=True)
class View:
    """One rendered frame of a place; `name` is the file's name."""

    name: str
    place: str
    map_name: str
    index: int
    pose: Pose
    frame: NDArray[np.uint8]

    def row(self) -> list[str]:
        """Return the line of poses.csv, in the order of POSE_FIELDS."""
        numbers = (self.pose.x, self.pose.y, self.pose.z, *self.pose.quaternion())
        return [self.name, self.place, self.map_name, *(f"{number:.6f}" for number in numbers)]


def is_distinct(frame: NDArray[np.uint8]) -> bool:
    """Tell whether a frame has enough contrast and edges to be told from a blank wall."""
    grey = Image.fromarray(frame).convert("L").resize((64, 48), Image.Resampling.BOX)
    levels = np.asarray(grey, dtype=np.float64)
    edges = (np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean()) / 2
    return bool(levels.std() >= LEAST_CONTRAST and edges >= LEAST_EDGES)


def find_spot(scene: Scene, rng: np.random.Generator, taken: list[Spot]) -> Spot | None:
    """Draw one spot near a thing of the map, or None where the draw is no good place."""
    seed_x, seed_y = scene.things[rng.integers(len(scene.things))]
    way, length = rng.uniform(0, 2 * math.pi), rng.uniform(THING_CLEARANCE, WANDER)
    spot = Spot(
        float(seed_x + length * math.cos(way)),
        float(seed_y + length * math.sin(way)),
        float(rng.uniform(0, 360)),
    )
    for other in taken:
        near = math.hypot(spot.x - other.x, spot.y - other.y) < APART
        if near and abs(wrap(spot.heading - other.heading)) < APART_DEG:
            return None
    if not _is_free(scene, float(seed_x), float(seed_y), spot):
        return None
    fan = spot.heading + np.linspace(-40, 40, 17)
    if np.median(scene.walls.free_distance(spot.x, spot.y, fan)) < OPEN_VIEW:
        return None
    return spot


def _is_free(scene: Scene, from_x: float, from_y: float, spot: Spot) -> bool:
    to_things = np.abs(scene.things - np.array([spot.x, spot.y])).max(1)
    return bool(
        to_things.min() >= THING_CLEARANCE
        and scene.walls.clearance(spot.x, spot.y) >= CLEARANCE
        and scene.walls.reach(from_x, from_y, spot.x, spot.y)
    )


def render_place(
    scene: Scene, spot: Spot, views: int, jitter: Jitter, strength: float, rng: np.random.Generator
) -> list[tuple[Pose, NDArray[np.uint8]]] | None:
    """Take all views of one place, or None where one of them fails."""
    first = scene.take(spot, Light())
    if first is None or not is_distinct(first[1]):
        return None
    shots = [first]
    for _ in range(4 * views):
        if len(shots) == views:
            return shots
        way, length = rng.uniform(0, 2 * math.pi), jitter.radius * math.sqrt(rng.uniform(0.1, 1))
        moved = Spot(
            spot.x + length * math.cos(way),
            spot.y + length * math.sin(way),
            spot.heading + rng.uniform(-jitter.heading, jitter.heading),
            rng.uniform(-jitter.pitch, jitter.pitch),
        )
        light = Light.draw(rng, strength)
        if not _is_free(scene, spot.x, spot.y, moved):
            continue
        shot = scene.take(moved, light)
        if shot is None or abs(shot[0].z - first[0].z) * UNITS_PER_METRE > STEP:
            continue
        frame = light.apply(shot[1], rng)
        if frame.std() >= LEAST_CONTRAST / 2:  # darker or flatter, nobody could tell the place
            shots.append((shot[0], frame))
    return shots if len(shots) == views else None


def render_map(
    map_name: str,
    places: int,
    views: int,
    seed: int,
    size: tuple[int, int],
    jitter: Jitter,
    strength: float,
) -> Iterator[View]:
    """Yield up to `places` x `views` frames of one map; fewer where it has no more places."""
    rng = np.random.default_rng([seed, zlib.crc32(map_name.encode())])
    taken: list[Spot] = []
    with Scene(map_name, size, seed) as scene:
        if not len(scene.things):
            raise DataError(f"{map_name} holds no things to start from: leave it out of --maps")
        for _ in range(200 * places):
            if len(taken) == places:
                return
            spot = find_spot(scene, rng, taken)
            shots = spot and render_place(scene, spot, views, jitter, strength, rng)
            if not spot or not shots:
                continue
            place = f"{map_name}-{len(taken):03d}"
            taken.append(spot)
            for index, (pose, frame) in enumerate(shots):
                yield View(f"{place}-{index}.jpg", place, map_name, index, pose, frame)


def parse_maps(text: str) -> list[str]:
    """Parse `map01-map24,map30,e1m1` into names, in order.

    Raises UsageError for a name that Freedoom does not have, and for an empty range.
    """
    names: list[str] = []
    for part in filter(None, (piece.strip().lower() for piece in text.split(","))):
        if span := re.fullmatch(r"map(\d\d)-map(\d\d)", part):
            numbers = range(int(span[1]), int(span[2]) + 1)
            if not numbers:
                raise UsageError(f"--maps: {part} is no range: the smaller number comes first")
            names += [f"map{number:02d}" for number in numbers]
        else:
            names.append(part)
    for name in names:
        known = re.fullmatch(r"map(0[1-9]|[12]\d|3[0-2])|e[1-4]m[1-9]", name)
        if not known:
            raise UsageError(f"--maps: no map {name!r}: map01 to map32 or e1m1 to e4m9")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--maps: {text!r} names no map, or one twice: for example map01-map24")
    return names


def parse_size(text: str) -> tuple[int, int]:
    """Parse `192x144` into (width, height); UsageError outside 16 to 640 x 480."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if not match or not (16 <= int(match[1]) <= 640 and 16 <= int(match[2]) <= 480):
        raise UsageError(f"--size: {text!r} is not WIDTHxHEIGHT from 16x16 to 640x480")
    return int(match[1]), int(match[2])


def read_only(path: Path) -> set[str]:
    """Read the names of places to keep, one a line; `#` starts a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"--only: {path} cannot be read: {error.strerror}") from error
    names = {line.split("#")[0].strip() for line in lines} - {""}
    if not names:
        raise DataError(f"--only: {path} names no place: one a line, for example map29-003")
    return names


class Writer:
    """Writes frames and their poses.csv; with `split`, view 0 and the others apart.

    As a context manager it leaves the whole folder behind or nothing at all.
    """

    def __init__(self, output: Path, quality: int, split: bool) -> None:
        self._output, self._quality, self._split = output, quality, split
        self._rows: dict[Path, list[list[str]]] = {}

    def __enter__(self) -> Writer:
        self._folder = new_set(self._output)
        self._root = self._folder.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._folder.__exit__(*raised)

    def add(self, view: View) -> None:
        """Write one frame."""
        part = Path()
        if self._split:
            part = Path("gallery" if view.index == 0 else "queries")
        (self._root / part).mkdir(exist_ok=True)
        Image.fromarray(view.frame).save(self._root / part / view.name, quality=self._quality)
        self._rows.setdefault(part, []).append(view.row())

    def table(self, path: Path, rows: list[list[str]]) -> None:
        """Write a table of poses, below the folder that is made."""
        with open(self._root / path, "w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(POSE_FIELDS)
            table.writerows(rows)

    def finish(self, options: argparse.Namespace, **made: Any) -> None:
        """Write the poses of each folder, what they were rendered with, and what was ``made``."""
        for part, rows in self._rows.items():
            self.table(part / "poses.csv", rows)
        settings = {key: value for key, value in vars(options).items() if key != "output"}
        text = json.dumps({**settings, **made}, indent=2, sort_keys=True)
        (self._root / "render.json").write_text(text + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "192x144", 88)
    add = parser.add_argument
    add("--maps", required=True, help="map01-map24,map30 (Freedoom 2) or e1m1,e1m2 (Freedoom 1)")
    add("--places", type=whole(1, 999), default=80, help="places of each map, at most (80)")
    add("--views", type=whole(1, 99), default=5, help="frames of each place (5)")
    add("--light", type=real(0, 1), default=1.0, help="how much the light varies, 0 to 1 (1)")
    add("--radius", type=real(0, 128), default=32.0, help="how far views lie apart, map units (32)")
    add("--turn", type=real(0, 90), default=12.0, help="how far views turn, degrees (12)")
    add("--split", action="store_true", help="view 0 into gallery/, the others into queries/")
    add("--only", type=Path, metavar="FILE", help="keep the places that FILE lists")
    return parser


def render(options: argparse.Namespace) -> str:
    """Render what the options say and return the line to print."""
    maps, size = parse_maps(options.maps), parse_size(options.size)
    only = read_only(options.only) if options.only else None
    jitter = Jitter(radius=options.radius, heading=options.turn)
    counts: dict[str, int] = {}
    missing = set(only or ())
    with Writer(options.output, options.quality, options.split) as writer:
        for map_name in maps:
            seen = set()
            for view in render_map(
                map_name, options.places, options.views, options.seed, size, jitter, options.light
            ):
                seen.add(view.place)
                if only is None or view.place in only:
                    writer.add(view)
            missing -= seen
            counts[map_name] = len(seen if only is None else seen & only)
            print(f"{map_name}: {len(seen)} of {options.places} places", file=sys.stderr)
        if missing:
            raise DataError(f"--only: no place {min(missing)} was rendered: same options?")
        if not sum(counts.values()):
            raise DataError(f"no map of {options.maps} gave a place: try another --seed")
        writer.finish(options, only=options.only and options.only.name, places_per_map=counts)
    return f"{sum(counts.values())} places, {options.views} views of each, in {options.output}"


@one_line
def main(arguments: list[str] | None = None) -> None:
    """Render, and say what there is."""
    print(render(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
