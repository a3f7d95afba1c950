"""A place map at query time: opened, checked against the model, searched."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.drive import Drive
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.finding import find, find_on_path
from tatvpr_edge.runtime.forked import tell_children
from tatvpr_edge.runtime.found import Found
from tatvpr_edge.runtime.growing import Added, Moment, longer, numbers_now, taken
from tatvpr_edge.runtime.mapjournal import (
    StoredMap,
    check_same,
    journal_path,
    map_bytes,
    map_end,
    map_file,
    map_state,
    read_map,
    rewrite,
)
from tatvpr_edge.runtime.motion import Moved
from tatvpr_edge.runtime.oneprocess import OneProcess
from tatvpr_edge.runtime.pruning import Pruned, prune
from tatvpr_edge.runtime.recognition import RECOGNISED_AFTER_S, Lately
from tatvpr_edge.runtime.search import Asked
from tatvpr_edge.runtime.tracking import Tracked
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.manifest import ModelEntry
from tatvpr_edge.spec.maptypes import MapInfo, Places, calibrated
from tatvpr_edge.spec.values import path as check_path
from tatvpr_edge.spec.values import whole


class PlaceMap(OneProcess):
    """A map as it stood when it was opened, and what was added through this object since.

    What other processes add is seen by opening it again. Safe to share between threads: a search
    that runs ends on the places that it began with.

    Args:
        path: a ``.placemap``.
        model: the model of an artifact; a map of another one is refused.
        engine: that artifact's loaded code, which searches. Without it the map can be looked at,
            not searched.
        sha256: of the file, where it was signed: it is then read once into memory.

    Raises:
        MapError: by name of the fault: truncated, altered, newer, of another model.
    """

    _elsewhere = "open it there, with PlaceMap(PATH) or localizer.open_map(PATH)"

    def __init__(
        self,
        path: str | Path,
        model: ModelEntry | None = None,
        engine: Engine | None = None,
        *,
        sha256: str | None = None,
    ) -> None:
        self.path = check_path(path, "map", "a .placemap")
        self._sha256 = sha256
        stored = read_map(self.path, sha256)
        if model is not None:
            _check_model(self.path, stored.base.info, model)
        self._engine = engine
        self._after_fork()
        tell_children(self)
        self._confirmed: dict[int, int] = {}
        self._lately = Lately()
        self._torn, self._journalled = stored.torn_bytes, stored.journalled
        self._file = stored.file
        self._caught_up: object = None  # the state of the files that was last looked into
        self._now = Moment.of(stored.base, Added(stored.added), engine)
        self._drive = Drive(self.path)
        _tell_left_at_link(self.path)

    def _after_fork(self) -> None:
        """Locks of its own: for an object, a copy of one, and a forked child."""
        self._growing, self._counting = threading.Lock(), threading.Lock()

    def _take(self, stored: StoredMap, written: dict[int, int] | None = None) -> None:
        """Search these places from now on; what was confirmed stays so under its new number.

        Args:
            written: how often places were confirmed that the file counts by now.
        """
        before, added = self._now, Added(stored.added)
        now = Moment.of(stored.base, added, self._engine, before)
        to: dict[int, int] | None = None
        if not longer(now, before):
            to = numbers_now(before, now)
            stay = all(place == number for place, number in to.items())
            if len(to) < len(before) or not stay or now.base.info != before.base.info:
                now = Moment.of(stored.base, added, self._engine)
        with self._counting:  # counts and the numbers that they are of change together
            left = Counter(self._confirmed) - Counter(written)
            if to is not None:
                left = Counter({to[place]: times for place, times in left.items() if place in to})
            self._confirmed = dict(left)
            self._torn, self._journalled = stored.torn_bytes, stored.journalled
            self._file, self._now = stored.file, now

    def judging(self, calibrations: Sequence[Calibration | None]) -> PlaceMap:
        """The same places, in memory, judged by other calibrations: one for each band.

        Raises:
            MapError: a calibration cannot be stored.
        """
        return self._copy(self._engine, calibrations)

    def _copy(
        self, engine: Engine | None, calibrations: Sequence[Calibration | None] | None = None
    ) -> PlaceMap:
        """The same places, added ones as well, under other calibrations or another engine."""
        other = object.__new__(type(self))
        with self._counting:  # counts and the numbers that they are of
            other.__dict__.update(self.__dict__)
            other._confirmed, other._lately = dict(self._confirmed), self._lately.copy()
        other._after_fork()
        tell_children(other)
        other._drive = Drive(self.path)
        other._engine = engine
        now = other._now
        if calibrations is None:
            other._now = Moment.of(now.base, now.added, engine, now)
        else:
            base = replace(now.base, info=calibrated(now.base.info, calibrations))
            other._now = Moment.of(base, now.added, engine)
        return other

    def searched_by(self, model: ModelEntry, engine: Engine) -> PlaceMap:
        """The same places, searched by an artifact's loaded code.

        Raises:
            MapError: the map is of another model, or of a kind that this code does not search.
        """
        self.check_model(model)
        if self._engine is engine:
            return self
        return self._copy(engine)

    def check_model(self, model: ModelEntry) -> None:
        """Raise MapError where the map is of another model."""
        _check_model(self.path, self.info, model)

    def named(self) -> tuple[Path, str | None]:
        """(path, sha256) that open it again, in another process."""
        return self.path, self._sha256

    def check_searchable(self) -> None:
        """What :meth:`search` says of the map itself, before anything is described for it.

        Raises:
            MapError: it holds no places, or was opened without an engine.
        """
        self._now.searchable(self.path).check_filled()

    @property
    def engine(self) -> Engine:
        """The code that searches it.

        Raises:
            MapError: it was opened without.
        """
        return self._now.searchable(self.path).engine

    @property
    def info(self) -> MapInfo:
        """Model, kind, dimension, bands and pose frame."""
        return self._now.base.info

    @property
    def stored(self) -> StoredMap:
        """Base file and journal, with what was added through this object."""
        now = self._now
        return StoredMap(now.base, now.added.places(), self._torn, self._journalled)

    def __len__(self) -> int:
        return len(self._now)

    @property
    def file_bytes(self) -> int:
        """Bytes of its base file and journal."""
        return map_bytes(self.path)

    def tag(self, place: int) -> str:
        """The text stored with ``place``.

        Raises:
            MapError: there is no such place.
        """
        now = self._now
        return now.tag(self._place(place, now))

    def pose(self, place: int) -> NDArray[np.float64]:
        """Pose float64 [7] of ``place``, NaN where unknown.

        Raises:
            MapError: there is no such place.
        """
        now = self._now
        place, base, added = self._place(place, now), now.base, now.added
        if place < len(base):
            return base.pose(place)
        pose: NDArray[np.float64] = added.poses[place - len(base)]
        return pose

    def search(
        self,
        descriptor: NDArray[np.float32],
        k: float,
        tokens: float = 1.0,
        count: int = 1,
        *,
        first: int = 0,
        end: int | None = None,
        without: NDArray[np.bool_] | None = None,
        near: Sequence[float] | None = None,
        radius: float | None = None,
        scores: bool = False,
        last: int = 0,
        without_s: Sequence[float] | None = None,
    ) -> Found:
        """The ``count`` places most like ``descriptor``, best first; ties go to the lower place.

        The band made at the nearest higher k is searched, else the highest (docs/placemap.md).

        Args:
            descriptor: float32 [descriptor_size].
            first, end: only places first .. end - 1 are looked at.
            without: bool [places]: those that are left out.
            near, radius: only places within so many metres of a position or pose (x, y, ...); a
                place of unknown position is then left out.
            scores: give the score of every place as well.
            last: so many places at the end are left out.
            without_s: (from, to): places that were seen between these, in seconds since 1970, are
                left out; those of unknown time are not.

        Raises:
            MapError: the map is empty or opened without an engine, or the descriptor has another
                size, is zero or not finite.
            UsageError: an argument is out of range.
        """
        last = whole(last, 0, "last", "how many places at the end are left out")
        now = self._now
        table = now.searchable(self.path)
        looked = now.left_out(first, end, without, last, without_s)
        return find(now, table, descriptor, Asked(k, tokens, count, *looked, near, radius), scores)

    def follow(
        self,
        follow: Callable[..., Tracked],
        descriptor: NDArray[np.float32],
        k: float,
        tokens: float = 1.0,
        count: int = 1,
        *,
        shown: bool = True,
        moved: Moved | None = None,
        without: NDArray[np.bool_] | None = None,
        near: Sequence[float] | None = None,
        radius: float | None = None,
        last: int = 0,
        without_s: Sequence[float] | None = None,
    ) -> Found:
        """As :meth:`search`, of a path: the place that its last frames speak for
        comes first, with this frame's score; then the places most like this frame. Where that place
        is left out, there is no answer.

        Args:
            follow: ``Tracker.follow`` or ``Path.step`` of that path.
            shown: False: the frame shows nothing, so that the path goes on by ``moved`` alone
                (as it does for a descriptor of nothing).
            moved: how the camera moved since the last frame; None: not known.
        """
        now = self._now
        table = now.searchable(self.path)
        looked = now.left_out(0, None, without, last, without_s)
        asked = Asked(k, tokens, count, *looked, near, radius)
        return find_on_path(now, table, follow, descriptor, asked, shown, moved)

    # ---- growing ----

    def add(
        self,
        descriptors: Sequence[NDArray[np.float32]],
        pose: NDArray[np.float64],
        tag: str = "",
        time_s: float | None = None,
    ) -> int:
        """Add one place, on the disk and to the next search; gives its number.

        What is added through this object is one drive, in the order of its calls.

        Args:
            descriptors: float32 [descriptor_size], one a band.
            pose: float64 [7], NaN where unknown.
            time_s: seconds since 1970; None: now.

        Raises:
            MapError: nothing was added; the text says why.
        """
        with self._growing:
            if map_file(self.path) != self._file:
                self._take(self._read())
            seen_s = time.time() if time_s is None else time_s
            done = self._drive.add(self.info, descriptors, pose, tag, seen_s)
            now = self._now
            if (done.number, done.file) == (len(now), self._file):
                self._now = Moment.of(now.base, now.added.plus(done.places), self._engine, now)
            else:  # another process added as well, or made another file of it
                self._take(self._read())
            return done.number

    def confirm(self, place: int, mark: str | None = None) -> None:
        """Count that ``place`` was recognised: pruning keeps it. On the disk when pruned.

        Args:
            place: its number.
            mark: what a search said that it is known by, whose number may be another one since;
                None: the number is today's.

        Raises:
            MapError: there is no such place, or no longer.
        """
        with self._counting:
            now = self._now
            known = place if mark is None else now.known_by(mark, place)
            if known is None:
                raise MapError(
                    f"map {self.path} has no place {place} any longer as it was found: it was "
                    "pruned, or found in another map"
                )
            known = self._place(known, now)
            self._confirmed[known] = self._confirmed.get(known, 0) + 1

    def _place(self, place: Any, now: Moment) -> int:
        number = whole(place, -1, "place", "the number of a place")
        if not 0 <= number < len(now):
            raise MapError(f"map {self.path} has no place {number}: it holds {len(now)}")
        return number

    def recognised(self, found: Found, time_s: float, since_s: float | None = None) -> None:
        """Like :meth:`confirm`, of the best place that a search just found for a frame of then.

        Not counted where the place itself is of the last minute, or it or one like it was named
        within it: that a robot still knows where it just was, or stands, says nothing about the
        place.

        Args:
            since_s: what was seen from then on was left out of the search, so that the minute is
                the one before; None: nothing was.
        """
        with self._counting:  # not the lock of add, which waits for the disk
            assert found.mark is not None
            now = self._now
            place = now.known_by(found.mark, found.candidates[0].place)
            if place is None:
                return  # the map was pruned meanwhile
            if self._lately.stays(now.base.info, now.row(place), time_s):
                return
            seen_us = int(now.stored(place)[0]["time_us"])
            from_s = time_s if since_s is None else since_s
            if seen_us == 0 or abs(from_s - seen_us / 1e6) >= RECOGNISED_AFTER_S:
                self._confirmed[place] = self._confirmed.get(place, 0) + 1

    def prune(self, most: int) -> Pruned:
        """Drop the most redundant places until ``most`` are left; those that stay keep their order
        and get new numbers (see :mod:`tatvpr_edge.runtime.pruning`).

        Raises:
            MapError: nothing was dropped; the text says why.
        """
        most = whole(most, 1, "most", "how many places stay, from 1 up")
        with self._growing:
            done: list[Pruned] = []
            written: dict[int, int] = {}

            def change(stored: StoredMap) -> tuple[MapInfo, Sequence[Places]]:
                check_same(self.path, self.info, stored.base.info)
                places = stored.base.places()
                moments = places.moments.copy()
                with self._counting:
                    written.update(self._confirmed)
                # Another process may have pruned it: its places are known by their marks.
                to = numbers_now(self._now, Moment.of(stored.base, Added(stored.added), None))
                for place, times in written.items():
                    if place in to:
                        seen = int(moments["confirmed"][to[place]]) + times
                        moments["confirmed"][to[place]] = min(seen, 255)
                places = replace(places, moments=moments)
                done.append(prune(self.info, places, most))
                return stored.base.info, [taken(places, done[0].keep)]

            rewrite(self.path, change)
            self._sha256 = None  # whoever may prune it made another file of it
            self._take(self._read(), written)
            return done[0]

    def catch_up(self) -> None:
        """See what other processes did to the map since it was read.

        Raises:
            MapError: it cannot be read, or is another map by now; nothing changed here.
        """
        with self._growing:
            state = map_state(self.path)
            if state != self._caught_up and map_end(self.path) != (self._file, len(self)):
                self._take(self._read())
            self._caught_up = state  # a torn journal, or a long record, costs once

    def _read(self) -> StoredMap:
        stored = read_map(self.path, self._sha256)
        check_same(self.path, self.info, stored.base.info)
        return stored

    @property
    def confirmed(self) -> int:
        """How many places were confirmed, and stay when the map is pruned."""
        with self._counting:
            kept = np.concatenate(self._now.moments())["confirmed"] > 0
            kept[list(self._confirmed)] = True
        return int(kept.sum())


def _check_model(path: Path, info: MapInfo, model: ModelEntry) -> None:
    if info.model_hash != model.hash:
        raise MapError(
            f"map {path} was made with another model ({info.model_hash[:12]}) than the "
            f"artifact's ({model.hash[:12]}): give the artifact that it was made with, or make "
            "the map again with this one"
        )
    if info.descriptor_size != model.descriptor_size:
        raise MapError(
            f"map {path} is of descriptors of {info.descriptor_size} numbers, the artifact's have "
            f"{model.descriptor_size}: make the map again with this artifact"
        )


def _tell_left_at_link(path: Path) -> None:
    """An older release kept what it added through a link beside the link, where nobody looks."""
    left, journal = Path(f"{path}.journal"), journal_path(path)
    if left == journal or not left.is_file() or left.is_symlink():
        return
    remedy = f"move it to {journal}"
    if journal.exists():
        remedy = "copy the map elsewhere, move it beside the copy, and 'tatvpr-edge map merge' both"
    logging.getLogger("tatvpr_edge").warning(
        "%s, places that an older release added through a link, is not searched: %s", left, remedy
    )
