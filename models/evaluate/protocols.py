"""Evaluation protocols: which frames are the map, which are asked for, and which answers are right.

A protocol yields trials; every describer is judged on the same trials, so differences between
describers are paired. What each protocol measures and where it deceives is in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tatvpr_edge.mapping import open_rgb
from tatvpr_edge.mapping.coordinates import metres_apart
from tatvpr_edge.mapping.labels import labelled_frames
from tatvpr_edge.mapping.neighbours import NEAR, neighbouring
from tatvpr_edge.models.data.formats import Positioned, gallery_and_queries, tower_rows
from tatvpr_edge.models.evaluate.recall import WITHIN_M
from tatvpr_edge.spec.errors import DataError, UsageError

Bools = NDArray[np.bool_]

#: tower-shift: every n-th frame of a clip is in the map.
GALLERY_EVERY = 4
#: tower-shift: an answer is right within so many frames of the query, in the same clip.
WITHIN_FRAMES, WITHIN_FRAMES_WIDE = 3, 6
#: tower-shift: how many times the queries are changed.
PERTURBATION_SEEDS = 5
#: Columns of a truth looked at together when its answerable queries are counted.
_COLUMNS = 1024
#: Distances computed together.
_CELLS = 1 << 20


class Truth(Protocol):
    """``[queries, gallery]`` of yes and no, as an array has it; it may be computed when read."""

    def __getitem__(self, key: Any, /) -> Bools: ...


class Within:
    """Which places lie within ``within_m`` of which queries: computed where it is looked at,
    because the whole table of a large test set does not fit in memory."""

    def __init__(self, queries: Positioned, places: Positioned, within_m: float) -> None:
        known = queries.poses is not None and places.poses is not None
        self._queries, self._places = (
            side.poses[:, :3] if known and side.poses is not None else side.positions
            for side in (queries, places)
        )
        self._frame = places.frame
        self._within_m = within_m

    def __getitem__(self, key: Any, /) -> Bools:
        """As an array's, for slices and arrays of numbers."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        queries, places = self._queries[rows], self._places[columns]
        within = np.empty((len(queries), len(places)), np.bool_)
        step = max(1, _CELLS // max(1, len(places)))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            within[part] = metres_apart(queries[part], places, self._frame) <= self._within_m
        return within


@dataclass(frozen=True)
class Trial:
    """One map, one set of queries.

    Attributes:
        gallery, queries: RGB images of any size.
        right: ``[queries, gallery]``, whether that answer would be right.
        allowed: ``[queries, gallery]``, whether that answer may be given; None for all.
        right_wide: a second, more lenient rule, reported beside the first; None for none.
        linked: ``[gallery - 1]``, whether each place but the first is the neighbour on a drive of
            the one before, as ``mapping.neighbours`` has it; None: no two are.
    """

    gallery: Sequence[Image.Image]
    queries: Sequence[Image.Image]
    right: Truth
    allowed: Truth | None = None
    right_wide: Truth | None = None
    linked: Bools | None = None

    def answerable(self) -> Bools:
        """Which queries have a right answer in the map at all, ``[queries]``."""
        found = np.zeros(len(self.queries), np.bool_)
        for start in range(0, len(self.gallery), _COLUMNS):
            found |= self.right_in(slice(start, start + _COLUMNS)).any(axis=1)
        return found

    def right_in(self, places: slice, wide: bool = False) -> Bools:
        """Which of ``places`` would be right and may be given, ``[queries, places]``."""
        truth = self.right_wide if wide else self.right
        assert truth is not None
        right = truth[:, places]
        return right if self.allowed is None else right & self.allowed[:, places]


def changed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The fixed-seed change of tower-shift: rotation within 5 degrees, a crop of 75 to 100 % of the
    area, brightness, contrast and gamma within 15 %, Gaussian blur of sigma 0 to 1 px at 256 rows.
    """
    angle = rng.uniform(-5, 5)
    side = np.sqrt(rng.uniform(0.75, 1.0))
    x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
    brightness, contrast, gamma = rng.uniform(0.85, 1.15, 3)
    sigma = rng.uniform(0, 1) * image.height / 256
    cut = turned(image, angle, (x, y, side))
    levels = np.asarray(cut, np.float32) / 255 * brightness
    mean = levels.mean()
    levels = np.clip((levels - mean) * contrast + mean, 0, 1) ** gamma
    result = Image.fromarray(np.rint(levels * 255).astype(np.uint8))
    return result.filter(ImageFilter.GaussianBlur(sigma))


def turned(
    image: Image.Image, angle_deg: float, crop: tuple[float, float, float] = (0.0, 0.0, 1.0)
) -> Image.Image:
    """``image`` turned, enlarged until it has no corners outside the picture, and cropped.

    Args:
        crop: left, top and side of what is kept, as fractions of what the turn leaves.
    """
    x, y, side = crop
    drawn = image.rotate(angle_deg, Image.Resampling.BILINEAR)
    radians = np.deg2rad(abs(angle_deg))
    ratio = max(image.width / image.height, image.height / image.width)
    inner = 1 / (np.cos(radians) + ratio * np.sin(radians))
    left = ((1 - inner) / 2 + x * inner) * image.width
    top = ((1 - inner) / 2 + y * inner) * image.height
    box = (left, top, left + side * inner * image.width, top + side * inner * image.height)
    return drawn.resize(image.size, Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True)
class _TowerFrames:
    images: list[Image.Image]
    floor: NDArray[np.str_]
    clip: NDArray[np.str_]
    frame: NDArray[np.int64]


def _tower(root: Path, floors: Sequence[str] | None) -> _TowerFrames:
    chosen = tower_rows(root, "val" if floors is None else "train", floors)
    return _TowerFrames(
        images=[open_rgb(root / row["path"]) for row in chosen],
        floor=np.array([row["floor"] for row in chosen]),
        clip=np.array([f"{row['floor']}/{row['clip']}" for row in chosen]),
        frame=np.array([int(row["frame"]) for row in chosen]),
    )


def tower_shift(root: Path, floors: Sequence[str] | None = None) -> Iterator[Trial]:
    """Frames of a clip, every 4th in the map, the others changed and asked for.

    Args:
        root: folder of ``frames.csv``.
        floors: training floors instead of the validation floors, for choosing a checkpoint.
    """
    frames = _tower(root, floors)
    clips = dict.fromkeys(frames.clip.tolist())
    position = np.concatenate([np.arange(np.sum(frames.clip == clip)) for clip in clips])
    is_gallery = position % GALLERY_EVERY == 0
    gallery, queries = np.flatnonzero(is_gallery), np.flatnonzero(~is_gallery)
    same = frames.clip[queries, None] == frames.clip[gallery]
    apart = np.abs(frames.frame[queries, None] - frames.frame[gallery])
    linked = _linked(frames, gallery)
    for seed in range(PERTURBATION_SEEDS):
        rng = np.random.default_rng(1000 + seed)
        yield Trial(
            gallery=[frames.images[i] for i in gallery],
            queries=[changed(frames.images[i], rng) for i in queries],
            right=same & (apart <= WITHIN_FRAMES),
            right_wide=same & (apart <= WITHIN_FRAMES_WIDE),
            linked=linked,
        )


def _linked(frames: _TowerFrames, gallery: NDArray[np.int64]) -> Bools:
    same = frames.clip[gallery[:-1]] == frames.clip[gallery[1:]]
    return same & (np.diff(frames.frame[gallery]) <= NEAR * WITHIN_FRAMES)


def tower_floor(root: Path, floors: Sequence[str] | None = None) -> Iterator[Trial]:
    """Every frame asks for its floor; frames of its own clip may not answer."""
    frames = _tower(root, floors)
    if len(set(frames.floor)) < 2:
        raise DataError(
            f"{root}: of one floor alone ({frames.floor[0]}) every answer is right: tower-floor "
            "asks among several, so name more with --floors"
        )
    yield Trial(
        gallery=frames.images,
        queries=frames.images,
        right=frames.floor[:, None] == frames.floor,
        allowed=frames.clip[:, None] != frames.clip,
        linked=_linked(frames, np.arange(len(frames.images))),
    )


def rendered(root: Path) -> Iterator[Trial]:
    """Rendered places: view 0 is in the map, the moved and relit views ask for their place."""
    frames, labels = labelled_frames(root)
    images = [open_rgb(frame.path) for frame in frames]
    place = np.array(labels)
    seen: set[str] = set()
    first = np.zeros(len(frames), dtype=np.bool_)
    for index, label in enumerate(place):
        first[index] = label not in seen
        seen.add(label)
    gallery, queries = np.flatnonzero(first), np.flatnonzero(~first)
    if not len(queries):
        raise DataError(
            f"{root / 'poses.csv'}: every place has a single view, nothing can be asked"
        )
    yield Trial(
        gallery=[images[i] for i in gallery],
        queries=[images[i] for i in queries],
        right=place[queries, None] == place[gallery],
    )


def utm(root: Path, within_m: float = WITHIN_M, pose_frame: str | None = None) -> Iterator[Trial]:
    """A prepared test set (Pitts30k, MSLS, Tokyo 24/7, SVOX, Nordland ...): an answer is right
    within ``within_m``. Images are opened when they are needed.

    Args:
        pose_frame: what positions are, where names do not say it ("utm", "geographic", "local").
    """
    database, queries = gallery_and_queries(root, pose_frame)
    assert database.poses is not None
    folders = [str(path.parent) for path in database.paths]
    linked = neighbouring(folders, database.poses, database.frame)
    # Views of one spot, as a panorama is cut into, look elsewhere each: they are no drive. A robot
    # that waits looks the same way, where that is known.
    unknown = np.isnan(np.diff(database.poses[:, 3:], axis=0)).any(axis=1)
    still = (np.diff(database.positions, axis=0) == 0).all(axis=1) & unknown
    around = np.append(still, False) | np.insert(still, 0, False)
    yield Trial(
        gallery=LazyImages(database.paths),
        queries=LazyImages(queries.paths),
        right=Within(queries, database, within_m),
        linked=linked & ~(around[1:] | around[:-1]),
    )


class LazyImages(Sequence[Image.Image]):
    """Images on disk that are decoded one at a time, no larger than ``longest_px``: a database may
    hold a hundred thousand."""

    def __init__(self, paths: Sequence[Path], longest_px: int | None = None) -> None:
        self._paths, self._longest_px = paths, longest_px

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> LazyImages: ...

    def __getitem__(self, index: int | slice) -> Image.Image | LazyImages:
        if isinstance(index, slice):
            return LazyImages(self._paths[index], self._longest_px)
        image = open_rgb(self._paths[index])
        if self._longest_px is not None:
            image.thumbnail((self._longest_px, self._longest_px))
        return image


PROTOCOLS: dict[str, Callable[[Path], Iterator[Trial]]] = {
    "tower-shift": tower_shift,
    "tower-floor": tower_floor,
    "rendered": rendered,
    "utm": utm,
}


def protocol(name: str) -> Callable[[Path], Iterator[Trial]]:
    """The protocol called ``name``.

    Raises:
        UsageError: unknown name.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}: known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def trials_of(
    name: str,
    root: Path,
    floors: Sequence[str] = (),
    within_m: float | None = None,
    pose_frame: str | None = None,
) -> Iterator[Trial]:
    """The trials of the protocol ``name`` on the data in ``root``.

    Args:
        floors: for tower protocols, training floors instead of the validation floors.
        within_m, pose_frame: for utm, as :func:`utm`.

    Raises:
        UsageError: unknown protocol, or an option for one that has no use for it.
        DataError: data that the protocol cannot use.
    """
    if name == "utm" and not floors:
        return utm(root, WITHIN_M if within_m is None else within_m, pose_frame)
    if within_m is not None or pose_frame is not None:
        raise UsageError(f"{name} knows no distances: --within and --pose-frame belong to utm")
    if not floors:
        return protocol(name)(root)
    if name == "tower-shift":
        return tower_shift(root, floors)
    if name == "tower-floor":
        return tower_floor(root, floors)
    raise UsageError(f"{name} has no floors to choose")
