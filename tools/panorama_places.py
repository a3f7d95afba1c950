"""Make places to learn from out of panoramas: at each heading a place, seen by several cameras.

In: a folder of equirectangular panoramas (2:1). Out: a folder of JPEG frames with `poses.csv`
(name, place) beside them, as a training file's `format = "labelled"` reads it.

    python tools/panorama_places.py --panoramas FOLDER --headings 8 --views 4 --seed 0 \
        --output runs/panorama_places

A pixel of a view is a ray, K^-1 x turned by the camera's rotation, and a ray is a longitude and a
latitude of the panorama: exact, as `photo_places.py` is, but all around. Neighbouring headings
are places of their own, as long as they overlap by less than half.

The same arguments give the same frames (JPEG bytes also depend on Pillow's version).
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from given import one_line, tool_parser, whole
from numpy.typing import NDArray
from photo_places import find_photos, intrinsics, parse_size, rotation, write_frames
from PIL import Image

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.spec.errors import DataError

#: Horizontal field of view of the cameras, from and to; half-widths of their other angles.
FOV_DEG = (50.0, 75.0)
TURN_DEG, TILT_DEG, ROLL_DEG = 12.0, 8.0, 8.0

Pixels = NDArray[np.float64]


def look(
    panorama: NDArray[np.uint8], size: tuple[int, int], fov: float, turns: Sequence[float]
) -> Image.Image:
    """What a pinhole camera sees, sampled at twice the size and averaged.

    Args:
        panorama: ``[H, 2 H, 3]``; its middle column is straight ahead, its rows go from the zenith
            to the nadir.
        size: width and height of the view, pixels.
        fov: horizontal field of view, radians.
        turns: turn to the right, tilt and roll, radians.
    """
    width, height = 2 * size[0], 2 * size[1]
    inverse = np.linalg.inv(intrinsics(width, height, width / 2 / math.tan(fov / 2)))
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = rotation(*turns) @ inverse @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    right, down, ahead = rays / np.linalg.norm(rays, axis=0)
    column = (np.arctan2(right, ahead) / (2 * math.pi) + 0.5) * panorama.shape[1] - 0.5
    row = (np.arcsin(np.clip(down, -1, 1)) / math.pi + 0.5) * panorama.shape[0] - 0.5
    drawn = _bilinear(panorama, row, column).reshape(height, width, 3)
    return Image.fromarray(np.rint(drawn).astype(np.uint8)).resize(size, Image.Resampling.BOX)


def _bilinear(panorama: NDArray[np.uint8], row: Pixels, column: Pixels) -> Pixels:
    """Values at fractional rows and columns; columns go around, rows end at the poles."""
    rows, columns = panorama.shape[:2]
    top, left = np.floor(row), np.floor(column)
    down, along = (row - top)[:, None], (column - left)[:, None]
    upper, lower = (np.clip(top + i, 0, rows - 1).astype(int) for i in (0, 1))
    west, east = ((left + i).astype(int) % columns for i in (0, 1))
    above = panorama[upper, west] * (1 - along) + panorama[upper, east] * along
    below = panorama[lower, west] * (1 - along) + panorama[lower, east] * along
    mixed: Pixels = above * (1 - down) + below * down
    return mixed


def views_of(
    path: Path, headings: int, views: int, size: tuple[int, int], seed: int
) -> Iterator[list[Image.Image]]:
    """The views of each place of one panorama.

    Raises:
        DataError: an image that is not twice as wide as high.
    """
    image = open_rgb(path)
    if image.width != 2 * image.height:
        raise DataError(f"{path}: {image.width} x {image.height} is no equirectangular panorama")
    panorama = np.asarray(image)
    rng = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
    for heading in range(headings):
        place = []
        for _ in range(views):
            turn, tilt, roll = np.radians(rng.uniform(-1, 1, 3) * [TURN_DEG, TILT_DEG, ROLL_DEG])
            fov = math.radians(rng.uniform(*FOV_DEG))
            turns = (2 * math.pi * heading / headings + turn, tilt, roll)
            place.append(look(panorama, size, fov, turns))
        yield place


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--panoramas", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--output", type=Path, required=True, help="a folder to make")
    parser.add_argument("--headings", type=whole(1, 12), default=8, help="places of each panorama")
    parser.add_argument("--views", type=whole(2, 99), default=4, help="frames of each place")
    parser.add_argument("--size", default="192x192", help="of the frames, pixels")
    parser.add_argument("--seed", type=whole(0), default=0)
    given = parser.parse_args(arguments)
    size = parse_size(given.size)
    places = write_frames(
        given.output,
        (
            place
            for path in find_photos(given.panoramas)
            for place in views_of(path, given.headings, given.views, size, given.seed)
        ),
    )
    print(f"{given.output}: {places} places of {given.views} views")
    return 0


if __name__ == "__main__":
    sys.exit(main())
