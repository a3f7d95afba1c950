"""An open map at one moment, as a search reads it, and the places that were added to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Part, Table, check_mask
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import MOMENT, Places, Rows
from tatvpr_edge.spec.placemap import Base, stored_poses
from tatvpr_edge.spec.values import numbers, wrong

_LEAST_ROOM = 64
_MARK_BYTES = 16
#: A mark begins with the place's number along its drive, so that few places are looked at for it.
_ORDER_DIGITS = 8
assert MOMENT.fields is not None
# Where these stand in a moment.
_CONFIRMED, _FROM = (int(MOMENT.fields[name][1]) for name in ("confirmed", "order"))
_ORDER = slice(_FROM, _FROM + MOMENT["order"].itemsize)


class Added:
    """The first ``count`` places of arrays that have room behind them. Never changed once made.

    One that is longer shares the arrays while there is room and nobody else took it, so that what
    a search reads stays where it is, and adding costs the same whatever was added before.
    """

    def __init__(self, places: Places) -> None:
        self.count = len(places)
        self.rows = places.rows
        self.poses = places.poses
        self.moments = places.moments
        self.tags = list(places.tags)

    def __len__(self) -> int:
        return self.count

    def plus(self, places: Places) -> Added:
        """These places and ``places`` behind them."""
        total = self.count + len(places)
        other = object.__new__(Added)
        other.count = total
        # Another copy of this map may have added behind the same places: its own then stay its own.
        fits = total <= len(self.poses) and len(self.tags) == self.count
        room = len(self.poses) if fits else max(2 * total, _LEAST_ROOM)

        def extended(mine: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
            into = mine
            if not fits:
                into = np.zeros((room, *mine.shape[1:]), mine.dtype)
                into[: self.count] = mine[: self.count]
            into[self.count : total] = more
            return into

        rows = []
        for mine, more in zip(self.rows, places.rows, strict=True):
            norms = None
            if mine.norms is not None and more.norms is not None:
                norms = extended(mine.norms, more.norms)
            rows.append(Rows(extended(mine.data, more.data), norms))
        other.rows = tuple(rows)
        other.poses = extended(self.poses, places.poses)
        other.moments = extended(self.moments, places.moments)
        other.tags = self.tags if fits else self.tags[: self.count]
        other.tags.extend(places.tags)
        return other

    def part(self) -> Part:
        """What a search reads."""
        return Part(self.count, self.rows, self.poses, self.moments)

    def places(self) -> Places:
        """The same without the room."""
        return taken(
            Places(self.rows, self.poses, tuple(self.tags[: self.count]), self.moments),
            slice(0, self.count),
        )


def taken(places: Places, which: slice | NDArray[np.int64]) -> Places:
    """Some of ``places``."""
    chosen: Sequence[str]
    if isinstance(which, slice):
        chosen = places.tags[which]
    else:
        chosen = [places.tags[int(index)] for index in which]
    rows = tuple(
        Rows(r.data[which], None if r.norms is None else r.norms[which]) for r in places.rows
    )
    return Places(rows, places.poses[which], tuple(chosen), places.moments[which])


def contents(places: Places) -> list[bytes]:
    """What each of ``places`` holds: descriptors, pose and tag, not when it was seen. The same
    frame, described and named alike, comes to the same."""
    columns = [places.moments["known"], np.nan_to_num(places.poses)]
    for rows in places.rows:
        columns += [rows.data] if rows.norms is None else [rows.data, rows.norms]
    made = []
    for place, tag in enumerate(places.tags):
        parts = [column[place].tobytes() for column in columns]
        made.append(blake2b(b"".join([*parts, tag.encode()]), digest_size=_MARK_BYTES).digest())
    return made


def standing(parts: Sequence[Places], tags: Collection[str]) -> set[bytes]:
    """What those places of a map hold that have one of these ``tags``: others are not looked at."""
    there = set[bytes]()
    for places in parts:
        named = [place for place, tag in enumerate(places.tags) if tag in tags]
        there.update(contents(taken(places, np.array(named, np.int64))))
    return there


@dataclass(frozen=True)
class Moment:
    """A map as one search reads it, whatever others add and prune meanwhile.

    Attributes:
        numbering: the same object in every moment in which a number means the same place.
    """

    base: Base
    added: Added
    table: Table | None
    numbering: object

    @classmethod
    def of(
        cls, base: Base, added: Added, engine: Engine | None, before: Moment | None = None
    ) -> Moment:
        """The places of a file and those added since; without an engine they are not searched.

        Args:
            before: a moment whose places have the same numbers here; None: there is none.
        """
        table = None
        if engine is not None:
            parts = [Part(len(base), base.rows, base.stored_poses, base.moments)]
            if len(added):
                parts.append(added.part())
            table = Table(engine, base.info, parts)
        return cls(base, added, table, object() if before is None else before.numbering)

    def mark(self, place: int) -> str:
        """What ``place`` is known by, whatever its number, in every process: when it was seen,
        along which drive, and where; of unknown time, what its first band holds (which `map lean`
        changes: places that a robot added stay known)."""
        moment, pose, row = self.stored(place)
        if not moment["time_us"]:
            return mark_of(moment, row.tobytes())
        of_file = place < len(self.base)  # whose poses are stored ones
        return mark_of(moment, pose.tobytes() if of_file else stored_poses(pose))

    def stored(self, place: int) -> tuple[np.void, NDArray[np.float64], NDArray[Any]]:
        """Moment, pose and first row of ``place``."""
        base, added = self.base, self.added
        if place < len(base):
            return base.moments[place], base.stored_poses[place], base.rows[0].data[place]
        at = place - len(base)
        return added.moments[at], added.poses[at], added.rows[0].data[at]

    def row(self, place: int) -> Rows:
        """What ``place`` holds in the first band: one row."""
        base = self.base
        rows, at = base.rows[0], place
        if place >= len(base):
            rows, at = self.added.rows[0], place - len(base)
        one = slice(at, at + 1)
        return Rows(rows.data[one], None if rows.norms is None else rows.norms[one])

    def marks(self) -> list[str]:
        """The same of each place."""
        return [self.mark(place) for place in range(len(self))]

    def known_by(self, mark: str, place: int) -> int | None:
        """The number here of the place with that mark, which was ``place`` when it was found; None:
        it is not here."""
        if 0 <= place < len(self) and self.mark(place) == mark:
            return place
        try:
            order = int(mark[:_ORDER_DIGITS], 16)
        except ValueError:
            return None  # a client may send anything
        orders = np.concatenate([part["order"] for part in self.moments()])
        alike = map(int, np.flatnonzero(orders == order))
        return next((number for number in alike if self.mark(number) == mark), None)

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    def searchable(self, path: Path) -> Table:
        """What is searched.

        Raises:
            MapError: the map at ``path`` was opened without an engine.
        """
        if self.table is None:
            raise MapError(
                f"map {path} was opened without an artifact's code, which searches: give "
                "PlaceMap(path, engine=...), or use Localizer(artifact, map)"
            )
        return self.table

    def tag(self, place: int) -> str:
        """The text stored with ``place``."""
        base = self.base
        return base.tag(place) if place < len(base) else self.added.tags[place - len(base)]

    def moments(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Times, orders and drives: of the file's places, and of those added since."""
        return self.base.moments, self.added.moments[: len(self.added)]

    def left_out(
        self,
        first: int,
        end: int | None,
        without: NDArray[np.bool_] | None,
        last: int,
        without_s: Sequence[float] | None,
    ) -> tuple[int, int | None, NDArray[np.bool_] | None]:
        """(first, end, without) of a search that leaves the last places out, too, and those that
        were seen between two times.

        Raises:
            UsageError: ``without`` is of another size, or ``without_s`` not two times.
        """
        span = _span(without_s)
        if last:
            end = max(min(len(self), len(self) if end is None else end) - last, 0)
        if span is not None:
            first_us, last_us = (second * 1e6 for second in span)
            seen_us = np.concatenate([part["time_us"] for part in self.moments()])
            then = (seen_us > first_us) & (seen_us < last_us) & (seen_us != 0)
            without = then if without is None else then | check_mask(without, len(self))
        return first, end, without


def _span(given: Any) -> tuple[float, float] | None:
    """Two times, checked; None where there are none."""
    if given is None:
        return None
    meaning = "(from, to) in seconds since 1970"
    span = numbers(given, "without_s", meaning)
    if len(span) != 2:
        raise wrong(given, "without_s", meaning)
    return span[0], span[1]


def mark_of(moment: np.void, holds: bytes) -> str:
    """What a place is known by: its moment, confirmations apart, and something that it holds."""
    seen = bytearray(moment.tobytes())
    seen[_CONFIRMED] = 0
    order = int.from_bytes(seen[_ORDER], "little")
    seen += holds
    digest = blake2b(seen, digest_size=_MARK_BYTES).hexdigest()
    return f"{order:0{_ORDER_DIGITS}x}{digest}"


def numbers_now(before: Moment, now: Moment) -> dict[int, int]:
    """The number ``now`` of each place of ``before`` that is still there."""
    old, new = before.marks(), now.marks()
    if new[: len(old)] == old:
        return {place: place for place in range(len(old))}
    there = {mark: place for place, mark in enumerate(new)}
    return {place: there[mark] for place, mark in enumerate(old) if mark in there}


def longer(now: Moment, before: Moment) -> bool:
    """Whether both are of one file, judged alike, and places were at most added behind it."""
    bases = [(of.base.payload_crc, of.base.file_bytes, of.base.info) for of in (now, before)]
    count = len(before.added)
    parts = [(of.added.rows[0].data[:count], of.added.moments[:count]) for of in (now, before)]
    same = (np.array_equal(mine, theirs) for mine, theirs in zip(*parts, strict=True))
    return bases[0] == bases[1] and all(same)
