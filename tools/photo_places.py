"""Make places to learn from out of single photographs: several virtual cameras at one spot.

In: folders of photographs, each of another scene. Out: a folder of JPEG frames with `poses.csv`
(name, place) beside them, as a training file's `format = "labelled"` reads it.

    python tools/photo_places.py --photos runs/houses --views 4 --size 320x240 --seed 0 \
        --output runs/photo_places

A camera that only turns sees the same picture up to a homography, K R K^-1 (Hartley and Zisserman,
Multiple View Geometry, 2nd ed., section 8.4): so one photograph gives true views of a place at
other headings, pitches, rolls and zooms, and no false ones. It cannot give parallax; rendered
places and video clips do. The photograph's horizontal field of view is unknown and taken as
`--fov-deg`. A camera that would see past the photograph's edge is drawn again, and after 50 draws
the last one is turned back and zoomed in until it fits.

The same arguments give the same frames (JPEG bytes also depend on Pillow's version).
"""

from __future__ import annotations

import csv
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from given import one_line, real, tool_parser, whole
from numpy.typing import NDArray
from PIL import Image
from rendering.command import new_set

from tatvpr_edge.mapping import frame_files, open_rgb
from tatvpr_edge.spec.errors import DataError, UsageError

#: A photograph with a shorter side than this is left out: its views would be blurred.
LEAST_SIDE_PX = 160
#: Half-widths of the cameras' other angles.
TILT_DEG, ROLL_DEG = 7.0, 5.0
_DRAWS = 50
#: A level camera at a zoom of 1 touches the edges: rounding may not push it out, pixels.
_ROUNDING_PX = 1e-6

Matrix = NDArray[np.float64]


def intrinsics(width: float, height: float, focal: float) -> Matrix:
    """The matrix K of a pinhole camera with its centre in the picture's, lengths in pixels."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def rotation(turn: float, tilt: float, roll: float) -> Matrix:
    """Camera axes (x right, y down, z forward) turned about y, then x, then z. Radians."""
    (ct, st), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (turn, tilt, roll))
    about_y = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    matrix: Matrix = about_y @ about_x @ about_z
    return matrix


def homography(
    photo: tuple[int, int], view: tuple[int, int], fov: float, turns: Sequence[float], zoom: float
) -> Matrix:
    """Where a view's pixels lie in the photograph: K_photo R K_view^-1.

    Args:
        photo, view: width and height, pixels.
        fov: the photograph's horizontal field of view, radians.
        turns: turn, tilt and roll of the virtual camera, radians.
        zoom: 1 fills the view with the largest part of the photograph that has its shape.
    """
    focal = photo[0] / 2 / math.tan(fov / 2)
    fits = min(photo[0] / view[0], photo[1] / view[1])  # photograph's pixels to one of the view
    inverse = np.linalg.inv(intrinsics(*view, focal * zoom / fits))
    matrix: Matrix = intrinsics(*photo, focal) @ rotation(*turns) @ inverse
    return matrix / matrix[2, 2]


def is_inside(matrix: Matrix, photo: tuple[int, int], view: tuple[int, int]) -> bool:
    """Tell whether all four corners of the view lie in the photograph, in front of the camera."""
    w, h = view
    corners = matrix @ np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1]], dtype=np.float64)
    if (corners[2] <= 0).any():
        return False
    x, y = corners[:2] / corners[2]
    low, high = -_ROUNDING_PX, np.array(photo) + _ROUNDING_PX
    return bool(min(x.min(), y.min()) >= low and x.max() <= high[0] and y.max() <= high[1])


@dataclass(frozen=True)
class Cameras:
    """The virtual cameras that are drawn.

    Attributes:
        size: width and height of their frames, pixels.
        fov_deg: the photographs' horizontal field of view.
        turn_deg: half-width of their headings.
        zoom: from and to; 1 shows the largest part of a photograph that has the frames' shape.
    """

    size: tuple[int, int] = (320, 240)
    fov_deg: float = 65.0
    turn_deg: float = 12.0
    zoom: tuple[float, float] = (1.05, 1.7)


def draw_view(photo: tuple[int, int], cameras: Cameras, rng: np.random.Generator) -> Matrix:
    """A random virtual camera that sees nothing but the photograph."""
    view, fov = cameras.size, math.radians(cameras.fov_deg)
    widths = np.radians([cameras.turn_deg, TILT_DEG, ROLL_DEG])
    for _ in range(_DRAWS):
        turns, zoom = rng.uniform(-widths, widths), rng.uniform(*cameras.zoom)
        matrix = homography(photo, view, fov, turns, zoom)
        if is_inside(matrix, photo, view):
            return matrix
    # A level camera at a zoom of 1 always fits: shrink the turns towards it.
    while not is_inside(matrix, photo, view):
        turns, zoom = turns * 0.8, 1.0 + (zoom - 1.0) * 1.02
        matrix = homography(photo, view, fov, turns, zoom)
    return matrix


def render_view(photo: Image.Image, matrix: Matrix, view: tuple[int, int]) -> Image.Image:
    """The photograph through a virtual camera: sampled at twice the size, then averaged."""
    twice = np.diag([0.5, 0.5, 1.0])
    larger = (2 * view[0], 2 * view[1])
    data = tuple(float(value) for value in (matrix @ twice).ravel()[:8])
    drawn = photo.transform(larger, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
    return drawn.resize(view, Image.Resampling.BOX)


def find_photos(folders: Sequence[Path]) -> list[Path]:
    """All photographs below the folders, in the order of their names.

    Raises:
        DataError: a folder is missing or holds no photograph.
    """
    return [frame.path for folder in folders for frame in frame_files(folder)]


def shrink(photo: Image.Image, cameras: Cameras) -> Image.Image:
    """The photograph no larger than its widest view needs, so that sampling does not alias."""
    fits = min(photo.width / cameras.size[0], photo.height / cameras.size[1])
    factor = fits / cameras.zoom[0] / 2
    if factor <= 1:
        return photo
    size = round(photo.width / factor), round(photo.height / factor)
    return photo.resize(size, Image.Resampling.LANCZOS)


def write_places(
    photos: Sequence[Path], output: Path, views: int, cameras: Cameras, seed: int
) -> tuple[int, int]:
    """Write the folder whole or not at all. Returns places written and photographs left out."""
    small = 0

    def places() -> Iterator[list[Image.Image]]:
        nonlocal small
        with click.progressbar(photos, label="photographs", file=sys.stderr) as bar:
            for path in bar:
                photo = open_rgb(path)
                if min(photo.size) < LEAST_SIDE_PX:
                    small += 1
                    continue
                photo = shrink(photo, cameras)
                rng = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
                matrices = [draw_view(photo.size, cameras, rng) for _ in range(views)]
                yield [render_view(photo, matrix, cameras.size) for matrix in matrices]
        if small == len(photos):
            raise DataError(f"all photographs are smaller than {LEAST_SIDE_PX} pixels")

    return write_frames(output, places()), small


def write_frames(output: Path, places: Iterable[Sequence[Image.Image]]) -> int:
    """Views of places as JPEG files with their `poses.csv`, whole or not at all. Returns how many
    places there were.

    Raises:
        DataError: the folder exists.
    """
    count = 0
    with new_set(output) as folder, (folder / "poses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "place"))
        for views in places:
            for number, view in enumerate(views):
                name = f"{count:05d}-{number}.jpg"
                view.save(folder / name, quality=90)
                writer.writerow((name, f"{count:05d}"))
            count += 1
    return count


def parse_size(text: str) -> tuple[int, int]:
    """`320x240` to numbers; UsageError where it is none."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found or min(int(found[1]), int(found[2])) < 32:
        raise UsageError(f"--size {text}: expected WIDTHxHEIGHT, at least 32x32, such as 320x240")
    return int(found[1]), int(found[2])


def parse_zoom(text: str) -> tuple[float, float]:
    """`1.05-1.7` to numbers; UsageError where it is no range above 1."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text)
    if not found or not 1 <= float(found[1]) <= float(found[2]):
        raise UsageError(f"--zoom {text}: expected FROM-TO, 1 or more, such as 1.05-1.7")
    return float(found[1]), float(found[2])


@one_line
def main(arguments: Sequence[str] | None = None) -> int:
    parser = tool_parser(__doc__)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--output", type=Path, required=True, help="a folder to make")
    parser.add_argument("--views", type=whole(2), default=4, help="frames of each photograph")
    parser.add_argument("--size", default="320x240", help="of the frames, pixels")
    parser.add_argument(
        "--fov-deg", type=real(20, 120), default=65.0, help="photographs' field of view"
    )
    parser.add_argument("--turn-deg", type=real(0, 60), default=12.0, help="how far views turn")
    parser.add_argument("--zoom", default="1.05-1.7", help="how far views zoom in, from-to")
    parser.add_argument("--seed", type=whole(0), default=0)
    given = parser.parse_args(arguments)
    zoom = parse_zoom(given.zoom)
    cameras = Cameras(parse_size(given.size), given.fov_deg, given.turn_deg, zoom)
    photos = find_photos(given.photos)
    places, small = write_places(photos, given.output, given.views, cameras, given.seed)
    print(f"{given.output}: {places} places of {given.views} views; {small} photographs too small")
    return 0


if __name__ == "__main__":
    sys.exit(main())
