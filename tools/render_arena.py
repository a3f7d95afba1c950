"""Render places with ground-truth poses: OpenArena's maps, drawn without a screen.

    apt-get install openarena xvfb
    python tools/render_arena.py --maps oa_dm1,oa_dm2 --places 60 --views 5 --seed 1 \
        --output runs/arena
    python tools/render_arena.py --maps all --sky --places 30 --output runs/arena_outdoor

Out: JPEG frames and `poses.csv` as tools/render_places.py writes them. A *place* is a spot near
something that stands in the map (so that one can get there) and a heading with a view: two thirds
of random headings face a wall. Its view 0 is in the map's own light; the others lie up to a metre
aside, look up to twelve degrees away, and have the exposure, gamma, colour cast and noise of
another camera (`Light`; the engine's own light does not change). `--sky` keeps places under open
sky alone. Poses are in metres (32 map units = 1 m), each map with its own origin.

The maps are GPL-2 and stay where they are installed: what is drawn from them is for training and
judging, and is no part of this project.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Iterator

import numpy as np
from given import one_line, real, whole
from render_places import APART, APART_DEG, OPEN_VIEW, View, Writer, is_distinct, parse_size
from rendering.arena import EYE, FEET, ArenaView, draw, packed_maps
from rendering.bsp import Bsp, Point
from rendering.command import make_parser
from rendering.light import Light
from rendering.scene import UNITS_PER_METRE, Pose, fit, wrap

from tatvpr_edge.spec.errors import DataError, UsageError

#: Kinds of things that stand where a player can get.
REACHABLE = ("info_player", "item_", "weapon_", "ammo_", "holdable_", "team_")
NEAR, WANDER = 24.0, 224.0  # how far from one a spot may lie, map units
CLEARANCE = 28.0
DROP = 160.0  # a spot's floor lies at most so far below
RADIUS, TURN_DEG = 32.0, 12.0
#: So many places are drawn for each that is kept: dark and blank ones go.
SPARE = 1.6


def find_spot(bsp: Bsp, rng: np.random.Generator, starts: list[Point]) -> Point | None:
    """Eyes of somebody who stands near something; None where the draw is no good."""
    x, y, z = starts[rng.integers(len(starts))]
    way, length = rng.uniform(0, 2 * math.pi), rng.uniform(NEAR, WANDER)
    there = (x + length * math.cos(way), y + length * math.sin(way), z + 8.0)
    if bsp.solid(there) or not bsp.reaches((x, y, z + 8.0), there):
        return None
    floor = bsp.floor_below(there, DROP)
    return None if floor is None else (there[0], there[1], floor + FEET + EYE)


def is_free(bsp: Bsp, eyes: Point) -> bool:
    """Whether nothing solid is nearer than a shoulder."""
    return all(bsp.free_distance(eyes, way, CLEARANCE) >= CLEARANCE for way in range(0, 360, 45))


def sees(bsp: Bsp, eyes: Point, heading: float) -> bool:
    """Whether the view is open: half of its rays go further than that."""
    fan = [bsp.free_distance(eyes, heading + turn, OPEN_VIEW) for turn in range(-40, 41, 10)]
    return float(np.median(fan)) >= OPEN_VIEW


def find_places(
    bsp: Bsp, rng: np.random.Generator, count: int, sky: bool
) -> list[tuple[Point, float]]:
    """Up to ``count`` spots with a heading, no two of them alike."""
    starts = [t.origin for t in bsp.things() if t.kind.startswith(REACHABLE)]
    found: list[tuple[Point, float]] = []
    for _ in range(60 * count if starts else 0):
        if len(found) == count:
            break
        eyes = find_spot(bsp, rng, starts)
        heading = float(rng.uniform(0, 360))
        if eyes is None or (sky and not bsp.under_sky(eyes)):
            continue
        alike = any(
            math.dist(eyes, other) < APART and abs(wrap(heading - turned)) < APART_DEG
            for other, turned in found
        )
        if not alike and is_free(bsp, eyes) and sees(bsp, eyes, heading):
            found.append((eyes, heading))
    return found


def beside(
    bsp: Bsp, rng: np.random.Generator, eyes: Point, heading: float, views: int
) -> list[tuple[Point, float]] | None:
    """The place itself and views beside it; None where there is no room for them."""
    found = [(eyes, heading)]
    for _ in range(8 * views):
        if len(found) == views:
            return found
        way, length = rng.uniform(0, 2 * math.pi), RADIUS * math.sqrt(rng.uniform(0.1, 1))
        moved = (eyes[0] + length * math.cos(way), eyes[1] + length * math.sin(way), eyes[2])
        if bsp.reaches(eyes, moved) and is_free(bsp, moved):
            found.append((moved, heading + float(rng.uniform(-TURN_DEG, TURN_DEG))))
    return found if len(found) == views else None


def render_map(
    map_name: str, bsp: Bsp, options: argparse.Namespace, size: tuple[int, int]
) -> Iterator[View]:
    """Yield up to `places` x `views` frames of one map; fewer where it has no more places."""
    rng = np.random.default_rng([options.seed, zlib.crc32(map_name.encode())])
    wanted = math.ceil(SPARE * options.places)
    spots = find_places(bsp, rng, wanted, options.sky)
    drawn = [m for eyes, way in spots if (m := beside(bsp, rng, eyes, way, options.views))]
    cameras = {
        f"{place:03d}-{index}": ArenaView(x, y, z - EYE, heading % 360)
        for place, moved in enumerate(drawn)
        for index, ((x, y, z), heading) in enumerate(moved)
    }
    if not cameras:
        return
    frames = draw(map_name, cameras, (320, 240))
    kept = 0
    for place in range(len(drawn)):
        if kept == options.places:
            return
        names = [f"{place:03d}-{index}" for index in range(options.views)]
        if not all(is_distinct(frames[name]) for name in names):
            continue
        for index, name in enumerate(names):
            camera = cameras[name]
            light = Light.draw(rng, options.light) if index else Light()
            pose = Pose(
                camera.x / UNITS_PER_METRE,
                camera.y / UNITS_PER_METRE,
                (camera.z + EYE) / UNITS_PER_METRE,
                camera.heading,
                0.0,
            )
            title = f"{map_name}-{kept:03d}"
            frame = light.apply(fit(frames[name], size), rng)
            yield View(f"{title}-{index}.jpg", title, map_name, index, pose, frame)
        kept += 1


def parse_maps(text: str, installed: dict[str, bytes]) -> list[str]:
    """Parse `oa_dm1,oa_dm2` or `all` into names of installed maps.

    Raises UsageError for a name that is not installed, or twice.
    """
    names = sorted(installed) if text == "all" else [n for n in text.split(",") if n]
    for name in names:
        if name not in installed:
            raise UsageError(f"--maps: no map {name!r}: all, or some of {', '.join(installed)}")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--maps: {text!r} names no map, or one twice: for example oa_dm1,oa_dm2")
    return names


def render(options: argparse.Namespace) -> str:
    """Render what the options say and return the line to print."""
    size = parse_size(options.size)
    installed = packed_maps()
    counts: dict[str, int] = {}
    with Writer(options.output, options.quality, options.split) as writer:
        for map_name in parse_maps(options.maps, installed):
            seen = set()
            for view in render_map(map_name, Bsp(installed[map_name], map_name), options, size):
                writer.add(view)
                seen.add(view.place)
            counts[map_name] = len(seen)
            print(f"{map_name}: {len(seen)} of {options.places} places", file=sys.stderr)
        if not sum(counts.values()):
            raise DataError(f"no map of {options.maps} gave a place: try another --seed")
        writer.finish(options, places_per_map=counts)
    return f"{sum(counts.values())} places, {options.views} views of each, in {options.output}"


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "192x144", 88)
    add = parser.add_argument
    add("--maps", required=True, help="all, or names such as oa_dm1,oa_dm2")
    add("--places", type=whole(1, 200), default=60, help="places of each map, at most (60)")
    add("--views", type=whole(1, 9), default=5, help="frames of each place (5)")
    add("--light", type=real(0, 1), default=1.0, help="how much cameras differ, 0 to 1 (1)")
    add("--sky", action="store_true", help="places under open sky alone")
    add("--split", action="store_true", help="view 0 into gallery/, the others into queries/")
    return parser


@one_line
def main(arguments: list[str] | None = None) -> None:
    """Render, and say what there is."""
    print(render(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
