"""Map search of the C core (``tatvpr_places_search``), through ctypes.

:class:`Table` holds the places of a map as C reads them: pointers into the base file
(in memory, or mapped) and into arrays of what was added since. A search runs in the calling thread,
without a lock.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.cfields import DOUBLE, FLOAT, INT32, POINTER, UINT32, UINT64, c_fields
from tatvpr_edge.runtime.engine import Engine, Signatures
from tatvpr_edge.spec.calibration import CALIBRATIONS, NO_DIALS, Calibration, at_dials
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.maptypes import FURTHEST_M, KINDS, MOMENT, Band, MapInfo, Rows
from tatvpr_edge.spec.values import above, numbers, whole, wrong

#: x y z qx qy qz qw.
Pose = tuple[float, float, float, float, float, float, float]

_SIGNATURES: Signatures = {"tatvpr_places_search": (ctypes.c_int, [*[POINTER] * 5, INT32, POINTER])}
#: Of libraries that know more than the first two kinds of maps; older ones would rank weighed maps
#: by distance alone.
_KINDS: Signatures = {"tatvpr_map_kind_known": (INT32, [UINT32])}
#: What every library knows; a later one says what else it does.
_FIRST_KINDS = ("int8", "binary")
_FIRST_CALIBRATIONS = ("score", "logistic")
_JUDGES: Signatures = {"tatvpr_calibration_known": (INT32, [UINT32])}
#: For how many settings a table keeps what its calibrations say.
_MOST_SETTINGS = 64
_ERR_NOT_FINITE, _ERR_ARGUMENT = 25, 27


class _Calibration(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "kind"),
        (FLOAT, "precision recall threshold"),
        (FLOAT * 3, "weights"),
        (FLOAT, "elsewhere_m"),
        (UINT32, "elsewhere_places"),
    )


class _Band(ctypes.Structure):
    _fields_ = c_fields((FLOAT, "k tokens"), (POINTER, "mean"), (_Calibration, "calibration"))


class _Rows(ctypes.Structure):
    _fields_ = c_fields((POINTER, "data norms"))


class _Part(ctypes.Structure):
    _fields_ = c_fields((UINT64, "places"), (POINTER, "rows poses moments"))


class _Places(ctypes.Structure):
    _fields_ = c_fields((UINT32, "size kind dim geographic bands parts"), (POINTER, "band part"))


class _Search(ctypes.Structure):
    _fields_ = c_fields(
        (UINT32, "size"),
        (FLOAT, "k tokens"),
        (UINT32, "reserved"),
        (UINT64, "first end"),
        (POINTER, "without"),
        (DOUBLE * 3, "near"),
        (DOUBLE, "radius_m"),
        (POINTER, "scores"),
    )


class Hit(ctypes.Structure):
    """One place of an answer as C tells it. Where they are not known, ``accepted`` is -1, and
    ``margin`` and ``confidence`` are NaN; for ``pose`` see :func:`told_pose`."""

    _fields_ = c_fields(
        (UINT32, "size band"),
        (UINT64, "place"),
        (FLOAT, "score"),
        (INT32, "accepted"),
        (DOUBLE * 7, "pose"),
        (FLOAT, "margin confidence"),
    )


class NoDescriptionError(MapError):
    """The descriptor is zero or not finite: there is nothing to look for."""


@dataclass(frozen=True)
class Part:
    """Places that lie one after another in memory, in arrays that C may read.

    Attributes:
        count: how many of the arrays' rows are places; the rest is room to grow.
        rows: one :class:`Rows` a band.
        poses: float64 [N, 7].
        moments: MOMENT [N]; its ``known`` says which numbers of ``poses`` mean something.
    """

    count: int
    rows: tuple[Rows, ...]
    poses: NDArray[np.float64]
    moments: NDArray[np.void]


@dataclass(frozen=True)
class Asked:
    """What a search looks for, beside the descriptor; fields as in ``tatvpr_search``.

    Attributes:
        first, end: only places first .. end - 1 are looked at; end None: to the last.
        without: bool [places]: those that are left out.
        near: (x, y) or (x, y, z), in the map's pose frame.
        radius_m: metres around ``near``.
    """

    k: float
    tokens: float = 1.0
    count: int = 1
    first: int = 0
    end: int | None = None
    without: NDArray[np.bool_] | None = None
    near: Sequence[float] | None = None
    radius_m: float | None = None


class Table:
    """The places of a map as C reads them; never changed once made.

    Attributes:
        engine: the code that searches.
        places: the C structure, alive as long as this object.
        judges_margins: whether an answer is judged by its margin, which is made of every score.
    """

    def __init__(self, engine: Engine, info: MapInfo, parts: Sequence[Part]) -> None:
        engine.declare(_SIGNATURES)
        if not _searches(engine, info.kind):
            raise _before_maps(engine.code, info.kind)
        for kind in _calibrations(info):
            check_judges(engine, kind)
        self.engine = engine
        self._search = engine.c.tatvpr_places_search
        self._info = info
        self._size = sum(part.count for part in parts)
        # Whatever C points into lives as long as this table.
        self._held: list[Any] = [list(parts)]
        bands = (_Band * len(info.bands))(*(self._band(band) for band in info.bands))
        tables = (_Part * len(parts))(*(self._part(part) for part in parts))
        self._held += [bands, tables]
        self._bands = bands
        calibrations = [band.calibration for band in info.bands]
        self.judges_margins = any(one is not None and one.kind != "score" for one in calibrations)
        self._heeds_dials = any(one is not None and one.dials != NO_DIALS for one in calibrations)
        self._at_dials: dict[tuple[float, float], tuple[_Places, Any]] = {}
        self.places = _Places(
            size=ctypes.sizeof(_Places),
            kind=KINDS[info.kind],
            dim=info.dim,
            geographic=int(info.pose_frame == "geographic"),
            bands=len(bands),
            parts=len(tables),
            band=ctypes.addressof(bands),
            part=ctypes.addressof(tables),
        )

    @property
    def size(self) -> int:
        """How many places it holds."""
        return self._size

    def check_filled(self) -> None:
        """Raise MapError where it holds no places."""
        if self._size < 1:
            raise MapError("this map holds no places yet: add frames with 'tatvpr-edge map add'")

    def judging(self, k: float, tokens: float) -> tuple[_Places, Any]:
        """The places under calibrations as they judge queries at (k, tokens), and what keeps
        them."""
        if not self._heeds_dials:
            return self.places, self._bands
        made = self._at_dials.get((k, tokens))
        if made is None:
            given = [band.calibration for band in self._info.bands]
            bands = type(self._bands).from_buffer_copy(self._bands)
            for band, one in zip(bands, given, strict=True):
                band.calibration = _calibration(None if one is None else at_dials(one, k, tokens))
            places = _Places.from_buffer_copy(self.places)
            places.band = ctypes.addressof(bands)
            made = places, bands
            if len(self._at_dials) >= _MOST_SETTINGS:
                self._at_dials.clear()
            self._at_dials[k, tokens] = made
        return made

    def _band(self, band: Band) -> _Band:
        made = _Band(k=band.k, tokens=band.tokens, calibration=_calibration(band.calibration))
        if band.mean is not None:
            mean = np.asarray(band.mean, np.float32)
            self._held.append(mean)
            made.mean = mean.ctypes.data
        return made

    def _part(self, part: Part) -> _Part:
        rows = (_Rows * len(part.rows))()
        for entry, stored in zip(rows, part.rows, strict=True):
            entry.data = _address(stored.data, self._info.row_bytes, part.count)
            if stored.norms is not None:
                entry.norms = _address(stored.norms, 4, part.count)
        self._held.append(rows)
        return _Part(
            places=part.count,
            rows=ctypes.addressof(rows),
            poses=_address(part.poses, 56, part.count),
            moments=_address(part.moments, MOMENT.itemsize, part.count),
        )

    def search(
        self, descriptor: NDArray[np.float32], asked: Asked, scores: NDArray[np.float32] | None
    ) -> tuple[int, list[Hit]]:
        """(index of the band that was searched, the best places, best first).

        Args:
            descriptor: float32 [descriptor_size].
            scores: float32 [places] that receives every score, or None.

        Raises:
            MapError: the descriptor has another size, is zero or not finite; or no places at all.
            UsageError: ``asked`` is out of range.
        """
        query = _checked(descriptor, self._info.descriptor_size)
        found = INT32()
        count = min(whole(asked.count, 1, "count", "how many places, from 1 up"), self._size)
        self.check_filled()
        hits = (Hit * count)()
        hits[0].size = ctypes.sizeof(Hit)
        request, held = self._request(asked, scores)
        places, bands = self.judging(request.k, request.tokens)
        status = self._search(
            ctypes.byref(places),
            ctypes.byref(self.engine.searcher),
            query.ctypes.data,
            ctypes.byref(request),
            hits,
            count,
            ctypes.byref(found),
        )
        del held, bands
        if status == _ERR_NOT_FINITE:
            raise NoDescriptionError("the descriptor is not finite: it looks like no place")
        if status == _ERR_ARGUMENT:
            raise NoDescriptionError("the descriptor is zero: it looks like no place")
        self.engine.check(status)
        return (hits[0].band if found.value else 0), hits[: found.value]

    def _request(
        self, asked: Asked, scores: NDArray[np.float32] | None
    ) -> tuple[_Search, list[Any]]:
        size = self._size
        numbered = "the number of a place, from 0 up"
        first = whole(asked.first, 0, "first", numbered)
        end = size if asked.end is None else min(whole(asked.end, 0, "end", numbered), size)
        k, tokens = check_fraction(asked.k, "k"), check_fraction(asked.tokens, "tokens")
        request = _Search(size=ctypes.sizeof(_Search), k=k, tokens=tokens)
        # C takes end = 0 for "to the last": an empty range is said with a first place behind it.
        request.first, request.end = (first, end) if end > 0 else (size, size)
        held: list[Any] = []
        if asked.without is not None:
            mask = np.ascontiguousarray(check_mask(asked.without, size))
            request.without = mask.ctypes.data
            held.append(mask)
        circle = around(asked.near, asked.radius_m)
        if circle is not None:
            request.near[:], request.radius_m = circle
        if scores is not None:
            if (
                scores.shape != (size,)
                or scores.dtype != np.float32
                or not scores.flags.c_contiguous
            ):
                raise UsageError(f"scores go into a float32 [{size}]")
            request.scores = scores.ctypes.data
        return request, held


def check_mask(without: Any, places: int) -> NDArray[np.bool_]:
    """``without`` where it says of each of so many places whether it is left out.

    Raises:
        UsageError: it does not.
    """
    if getattr(without, "dtype", None) != np.bool_ or without.shape != (places,):
        raise wrong(without, "without", f"a mask, bool [{places}]: one for each place")
    mask: NDArray[np.bool_] = without
    return mask


def around(
    near: Sequence[float] | None, radius_m: float | None
) -> tuple[tuple[float, float, float], float] | None:
    """(x, y, z) and radius as C takes them; z is NaN where it does not count. None: anywhere.

    Raises:
        UsageError: they are no position and no distance, or one is given without the other.
    """
    if near is None:
        if radius_m is not None:
            raise UsageError("a radius needs a pose: give near=(x, y) with it")
        return None
    meaning = "a position (x, y) or (x, y, z), or a pose, in the map's frame"
    given = numbers(near, "near", meaning)
    x, y, z = (*given[:3], *[math.nan] * 3)[:3]
    known = abs(x) <= FURTHEST_M and abs(y) <= FURTHEST_M and not abs(z) > FURTHEST_M
    if len(given) not in (2, 3, 7) or not known:
        raise wrong(near, "near", meaning)
    if radius_m is None:
        raise UsageError("near needs radius: how many metres around it, above 0")
    return (x, y, z), above(radius_m, 0, "radius", "how many metres around near, above 0")


def _searches(engine: Engine, kind: str) -> bool:
    """Whether a library searches maps of a kind."""
    if not hasattr(engine.c, "tatvpr_map_kind_known"):
        return kind in _FIRST_KINDS
    engine.declare(_KINDS)
    return bool(engine.c.tatvpr_map_kind_known(KINDS[kind]))


def check_judges(engine: Engine, kind: str) -> None:
    """Raise MapError where a library does not judge by a kind of calibrations."""
    known = kind in _FIRST_CALIBRATIONS
    if hasattr(engine.c, "tatvpr_calibration_known"):
        engine.declare(_JUDGES)
        known = bool(engine.c.tatvpr_calibration_known(CALIBRATIONS[kind]))
    if not known:
        raise _before_calibrations(engine.code, kind)


def check_functions(code: Path, info: MapInfo, has: Callable[[str], bool]) -> None:
    """Raise MapError where a library that cannot be loaded here, as another board's, is too old for
    a map. ``has``: whether it has a function of that name."""
    if info.kind not in _FIRST_KINDS and not has("tatvpr_map_kind_known"):
        raise _before_maps(code, info.kind)
    for kind in _calibrations(info):
        if kind not in _FIRST_CALIBRATIONS and not has("tatvpr_calibration_known"):
            raise _before_calibrations(code, kind)


def _calibrations(info: MapInfo) -> set[str]:
    return {band.calibration.kind for band in info.bands if band.calibration is not None}


def _before_maps(code: object, kind: str) -> MapError:
    return MapError(
        f"{code} was built before there were {kind} maps: build the artifact again, or make the "
        "map as int8 or binary"
    )


def _before_calibrations(code: object, kind: str) -> MapError:
    return MapError(
        f"{code} was built before there were {kind} calibrations, by which maps judge sequences: "
        "build the artifact again, or calibrate the map with --sequence 1"
    )


def _calibration(given: Calibration | None) -> _Calibration:
    if given is None:
        return _Calibration()
    return _Calibration(
        kind=CALIBRATIONS[given.kind],
        precision=given.precision,
        recall=given.recall,
        threshold=given.threshold,
        weights=given.weights,
        elsewhere_m=given.elsewhere_m,
        elsewhere_places=given.elsewhere_places,
    )


def _address(table: NDArray[Any], row_bytes: int, count: int) -> int:
    """Where C finds ``count`` rows of ``row_bytes`` bytes."""
    assert table.flags.c_contiguous and table.nbytes >= row_bytes * count
    return table.ctypes.data


def _checked(descriptor: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    try:
        query = np.ascontiguousarray(descriptor, dtype=np.float32)
    except (TypeError, ValueError):
        raise wrong(descriptor, "descriptor", f"float32 [{size}]") from None
    if query.shape != (size,):
        raise MapError(f"a descriptor of shape {query.shape}: this map's have [{size}]")
    return query


def told_pose(numbers: Sequence[float]) -> Pose | None:
    """A pose as C tells it; None where nothing of it is known."""
    x, y, z, qx, qy, qz, qw = numbers
    if not math.isnan(x + y + z + qx + qy + qz + qw):
        return x, y, z, qx, qy, qz, qw
    # One NaN for all, so that equal poses compare equal.
    pose = x, y, z, qx, qy, qz, qw = [n if n == n else math.nan for n in numbers]
    return None if pose.count(math.nan) == len(pose) else (x, y, z, qx, qy, qz, qw)
