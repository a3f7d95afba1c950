"""Queries whose truth is known, for ``map calibrate`` to ask: what is right for each of them.

In: a map, and labelled frames, the frames that it was made of, or its own descriptors. Out: each
query's descriptors, with the places of the map that are right for it and those around it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.mapping.build import PathLike, folder_of, frames_and_poses, frames_given
from tatvpr_edge.mapping.coordinates import metres_in_space
from tatvpr_edge.mapping.describe import Skipped, describe_frames
from tatvpr_edge.mapping.files import FrameFile
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import DataError, MapError

_LOG = logging.getLogger("tatvpr_edge")

Step = Callable[[int], None]
#: A folder or recording, or the frames of one.
Given = PathLike | Sequence[FrameFile]
#: (k, tokens) of each description.
Settings = Sequence[tuple[float, float]]
F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Right and wrong answers that are needed at least.
FEWEST = 20
#: Places asked for by the map's own descriptors, spread evenly over it.
MOST_PLACES = 2000
#: Places of it that are asked for one after another.
_DRIVE = 40
#: What is elsewhere lies further than this many times what counts as right. Two right places may
#: stand on either side of the query, so 2 at least; places just beyond look much alike, and more
#: than 4 tells no more (tools/calibration_figures.py).
_ELSEWHERE = 4
#: What gives frames their positions.
_GIVES = "--poses FILE, or --poses-topic of a bag"


@dataclass(frozen=True)
class Asked:
    """A query whose truth is known.

    Attributes:
        descriptor: float32 [descriptor_size].
        k, tokens: what it was made with.
        near: bool [places]: right answers.
        around: bool [places]: the query's surroundings, right answers included.
        own: the place that the query itself is in the map; -1: none.
        drive: queries of one number that follow each other are one camera's, in its order.
        signs: a weighed map is asked by the signs that it stores, so that every bit counts alike,
            as in a binary one; a frame's score is on another scale.
        untold: bool [places]: those of which nobody knows whether they are right; None: of none.
    """

    descriptor: NDArray[np.float32]
    k: float
    tokens: float
    near: Bools
    around: Bools
    own: int = -1
    drive: int = 0
    signs: bool = False
    untold: Bools | None = None

    @property
    def setting(self) -> tuple[float, float]:
        """(k, tokens)."""
        return self.k, self.tokens

    @property
    def where(self) -> int:
        """The first place that is right for it or, without one, of its surroundings; -1: none."""
        there = self.near if self.near.any() else self.around
        return int(there.argmax()) if there.any() else -1

    @property
    def never(self) -> Bools:
        """bool [places]: those that are none of its answers, be its place in the map or not."""
        never = np.zeros(len(self.near), np.bool_) if self.untold is None else self.untold.copy()
        if self.own >= 0:
            never[self.own] = True
        return never


class Truth:
    """Which places of a map are right for a query, and which are around it.

    Args:
        within_m: right is within so many metres, where both positions are known.
        within_places: otherwise so far along the order of the same drive.
    """

    def __init__(self, place_map: PlaceMap, within_m: float, within_places: int) -> None:
        stored = place_map.stored
        self.within_m, self.within_places = within_m, within_places
        self._frame = place_map.info.pose_frame
        self._poses = np.concatenate([stored.base.poses, stored.added.poses])
        self._moments = np.concatenate([stored.base.moments, stored.added.moments])

    @property
    def by_metres(self) -> bool:
        """Whether any place has a position, so that ``within_m`` says what is right."""
        return bool(np.isfinite(self._poses[:, :2]).any())

    @property
    def unplaced(self) -> Bools:
        """bool [places]: those without a position."""
        return np.isnan(self._poses[:, :2]).any(axis=1)

    def elsewhere(self) -> Calibration:
        """A calibration that says nothing but what "elsewhere" is, so that margins are given."""
        return Calibration(
            "logistic",
            0.0,
            elsewhere_m=float(np.float32(_ELSEWHERE * self.within_m)),
            elsewhere_places=_ELSEWHERE * self.within_places,
        )

    @property
    def wider(self) -> str:
        """The option that makes more answers right."""
        return "--within" if self.by_metres else "--within-places"

    def more(self, answerable: bool) -> str:
        """What gives more right answers; ``answerable``: whether any query has one."""
        if not self.by_metres:  # what stands in no order has no right answers along it
            return "add more places, make the map again with positions (--poses FILE)"
        if not answerable:  # as with an odometry that began elsewhere
            return (
                f"no query lies within {self.within_m:g} m of a place: give them the map's origin"
            )
        return "give more queries (QUERIES --poses FILE)"

    def check_enough(self, right: Iterable[Bools], settings: Settings) -> None:
        """Refuse, before any is described, queries that cannot give ``FEWEST`` right answers.

        Args:
            right: of each query, bool [places].

        Raises:
            DataError: however they are answered.
        """
        most = sum(bool(places.any()) for places in right) * len(settings)
        if most < FEWEST:
            raise DataError(
                f"{most} right answers at most, {FEWEST} are needed to learn from: "
                f"{self.more(most > 0)}, or a wider {self.wider}"
            )

    def judging(self, place_map: PlaceMap) -> PlaceMap:
        """The map, under calibrations that say nothing but what "elsewhere" is."""
        return place_map.judging([self.elsewhere()] * len(place_map.info.bands))

    def of_position(self, pose: F64) -> tuple[Bools, Bools]:
        """(right, around) bool [places] for a pose float64 [7]."""
        apart = self._metres(pose)
        return apart <= self.within_m, apart <= _ELSEWHERE * self.within_m

    def of_place(self, place: int) -> tuple[Bools, Bools, Bools]:
        """(right, around, untold) bool [places] for the frame of a place, which is none of its
        answers: of another drive nobody knows what is right where one has no position, in a map
        whose places have them."""
        apart = self._metres(self._poses[place])
        known = ~np.isnan(apart)
        own = self._moments[place]
        steps = np.abs(self._moments["order"].astype(np.int64) - int(own["order"]))
        along = np.where(self._moments["drive"] == own["drive"], steps, np.iinfo(np.int64).max)
        right = np.where(known, apart <= self.within_m, along <= self.within_places)
        around = np.where(
            known, apart <= _ELSEWHERE * self.within_m, along <= _ELSEWHERE * self.within_places
        )
        untold = ~known & (self._moments["drive"] != own["drive"]) & self.by_metres
        right[place] = False
        around[place] = True
        return right, around | untold, untold

    def drive_of(self, place: int) -> int:
        """Which drive a place comes from."""
        return int(self._moments["drive"][place])

    def drives(self, names: Sequence[str], poses: F64) -> list[int]:
        """A number for each of the queries in their order: another one where the folder changes,
        or the position jumps to elsewhere.

        Args:
            names: paths below the queries' folder.
            poses: float64 [N, 7].
        """
        numbers: list[int] = []
        for row, name in enumerate(names):
            on = row > 0 and os.path.dirname(name) == os.path.dirname(names[row - 1])
            if on:
                apart = metres_in_space(poses[row], poses[row - 1], self._frame)
                on = bool(apart <= _ELSEWHERE * self.within_m)
            numbers.append((numbers[-1] if numbers else -1) + (not on))
        return numbers

    def _metres(self, pose: F64) -> F64:
        return metres_in_space(pose, self._poses, self._frame)


def labelled(
    localizer: Localizer,
    place_map: PlaceMap,
    truth: Truth,
    queries: Given,
    table: PathLike | None,
    pose_frame: str | None,
    settings: Settings,
    progress: Step | None,
) -> tuple[list[Asked], tuple[Skipped, ...]]:
    """Frames with positions, each asked at all of ``settings`` and every band's own; and those left
    out, which have no position, cannot be read or show nothing.

    Raises:
        DataError: no frame has a position, too few have a right answer, or not one can be used.
        MapError: no place has one, or theirs are in another pose frame.
    """
    if not truth.by_metres:
        raise MapError(
            "the map's places have no positions, by which labelled queries are judged: make the "
            f"map again with {_GIVES}, or calibrate it from the frames it was made of (--frames)"
        )
    files, found = frames_and_poses(queries, table, pose_frame)
    if found.source == "none":
        raise DataError(f"{called(queries)}: its frames have no positions: give {_GIVES}")
    if found.frame != place_map.info.pose_frame:
        raise MapError(
            f"the map's positions are {place_map.info.pose_frame}, those of the queries are "
            f"{found.frame}: they cannot be compared"
        )
    known = np.flatnonzero(~found.unknown).tolist()
    if not known:
        raise DataError(f"{called(queries)}: not one frame has a position: fill in {found.source}")
    settings = _with_bands(place_map, settings)
    queried = [files[i] for i in known]
    judged = [truth.of_position(pose) for pose in found.values[known]]
    truth.check_enough((near for near, _ in judged), settings)
    _tell_of_own(place_map, queried, found.values[known])
    described = describe_frames(localizer, queried, settings, progress, as_places=True)
    chosen = [known[kept] for kept in described.kept]
    drives = truth.drives([files[i].name for i in chosen], found.values[chosen])
    told = differing(place_map, settings, described.descriptors)
    asked, untold = [], truth.unplaced
    for row, kept in enumerate(described.kept):
        near, around = judged[kept]
        around |= untold
        for (k, tokens), descriptors in told:
            asked.append(
                Asked(
                    *(descriptors[row], k, tokens, near, around), drive=drives[row], untold=untold
                )
            )
    return asked, (*found.without(files), *described.skipped)


def _tell_of_own(place_map: PlaceMap, queries: Sequence[FrameFile], poses: F64) -> None:
    """Warn of queries that have the name and position of a place, as the map's own frames do."""
    places = range(len(place_map))
    there = {(place_map.tag(place), *place_map.pose(place)[:2].tolist()) for place in places}
    own = sum((f.name, *at[:2].tolist()) in there for f, at in zip(queries, poses, strict=True))
    if own:
        _LOG.warning(
            "%d of %d queries have the name and the position of a place: frames that the map was "
            "made of find themselves, so that it would promise too much: give those as --frames",
            own,
            len(queries),
        )


def own_frames(
    localizer: Localizer,
    place_map: PlaceMap,
    truth: Truth,
    frames: Given,
    settings: Settings,
    progress: Step | None,
) -> tuple[list[Asked], tuple[Skipped, ...]]:
    """The frames that the map was made of, described anew; each is left out of its own answers. And
    those that are no place of the map or have the name of several, cannot be read, or show nothing
    and became places before a map refused such.

    Raises:
        DataError: none is named like one place of the map, too few have a right answer, or not one
            can be used.
    """
    named: dict[str, list[int]] = {}
    for place in range(len(place_map)):
        named.setdefault(place_map.tag(place), []).append(place)
    every = frames_given(frames)
    files, lost = list[FrameFile](), list[Skipped]()
    for file in every:
        count = len(named.get(file.name, ()))
        if count == 1:
            files.append(file)
        else:  # of several, as two folders make, nobody knows which it is
            why = f"{count} places of the map are called so" if count else "no place of the map"
            lost.append(Skipped(file.name, f"{file.name}: {why}"))
    if not files:
        raise DataError(
            f"{called(frames)}: not one frame is named like a place of the map and no other: give "
            "the folder that the map was made of, or labelled queries"
        )
    settings = _with_bands(place_map, settings)
    judged = [truth.of_place(named[file.name][0]) for file in files]
    truth.check_enough((near for near, _, _ in judged), settings)
    described = describe_frames(localizer, files, settings, progress, as_places=True)
    told = differing(place_map, settings, described.descriptors)
    asked = []
    for row, kept in enumerate(described.kept):
        own = named[files[kept].name][0]
        near, around, untold = judged[kept]
        drive = truth.drive_of(own)
        for (k, tokens), descriptors in told:
            made = descriptors[row]
            asked.append(Asked(made, k, tokens, near, around, own, drive, untold=untold))
    return asked, (*lost, *described.skipped)


def own_descriptors(place_map: PlaceMap, truth: Truth) -> list[Asked]:
    """The map's own descriptors, of at most MOST_PLACES places; each is none of its own answers."""
    asked, signs = [], place_map.info.kind == "weighed"
    for place in _spread_places(len(place_map)):
        near, around, untold = truth.of_place(place)
        drive = truth.drive_of(place)
        for index, band in enumerate(place_map.info.bands):
            made = stored_descriptor(place_map, index, place)
            setting = band.k, band.tokens
            asked.append(Asked(made, *setting, near, around, place, drive, signs, untold))
    return asked


def own_count(place_map: PlaceMap) -> int:
    """How many queries :func:`own_descriptors` makes of a map."""
    return len(_spread_places(len(place_map))) * len(place_map.info.bands)


def _spread_places(places: int) -> list[int]:
    """At most MOST_PLACES of them: short drives, evenly over the map."""
    if places <= MOST_PLACES:
        return list(range(places))
    firsts = np.linspace(0, places - _DRIVE, MOST_PLACES // _DRIVE).round().astype(int)
    return sorted({place for first in firsts.tolist() for place in range(first, first + _DRIVE)})


def stored_descriptor(place_map: PlaceMap, band: int, place: int) -> NDArray[np.float32]:
    """A descriptor float32 [descriptor_size] that is stored as ``place`` is, in that band."""
    info, base = place_map.info, place_map.stored.base
    part, row = (base.rows, place) if place < len(base) else (
        place_map.stored.added.rows, place - len(base)
    )  # fmt: skip
    stored = part[band].data[row]
    made = np.zeros(info.descriptor_size, np.float32)
    if info.kind == "int8":
        made[: info.dim] = stored
        return made
    mean = info.bands[band].mean
    signs = np.unpackbits(stored.view(np.uint8), bitorder="little").astype(np.float32) * 2 - 1
    made[: info.dim] = signs if mean is None else np.asarray(mean, np.float32) + signs
    return made


def differing(
    place_map: PlaceMap,
    settings: Sequence[tuple[float, float]],
    descriptors: Sequence[NDArray[np.float32]],
) -> list[tuple[tuple[float, float], NDArray[np.float32]]]:
    """The settings (k, tokens) with their descriptors [N, descriptor_size], without those that
    describe every frame as one before them did: of a model that keeps all its tokens, fewer of them
    would count each answer twice, and a threshold be chosen as if more had been seen. Every band's
    own setting stays, so that it is asked."""
    own = {(band.k, band.tokens) for band in place_map.info.bands}
    told: list[tuple[tuple[float, float], NDArray[np.float32]]] = []
    for setting, made in zip(settings, descriptors, strict=True):
        if setting in own or not any(np.array_equal(made, other) for _, other in told):
            told.append((setting, made))
    return told


def _with_bands(place_map: PlaceMap, settings: Settings) -> Settings:
    """``settings`` and each band's own, so that every band is asked."""
    own = ((band.k, band.tokens) for band in place_map.info.bands)
    return list(dict.fromkeys([*settings, *own]))


def called(given: Given) -> str:
    """How a message calls frames."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    return str(folder_of(given)) if given else "an empty list"
