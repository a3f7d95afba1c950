"""The C reader of a map's journal, called as a C program calls it."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.search import Hit

ALIGN = 64
MOST = 8
ARENA = 4  # TATVPR_ERR_ARENA


class _Map(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("dim", ctypes.c_uint32),
        ("bands", ctypes.c_uint32),
        ("places", ctypes.c_uint64),
        ("base", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    ]


class _Journal(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("bands", ctypes.c_uint32),
        ("first", ctypes.c_uint64),
        ("places", ctypes.c_uint64),
        ("torn_bytes", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("tag_bytes", ctypes.c_uint64),
        ("tables", ctypes.c_void_p),
        ("tag_ends", ctypes.c_void_p),
    ]


def _aligned(bytes_: int) -> tuple[Any, int]:
    held = ctypes.create_string_buffer(bytes_ + ALIGN)
    return held, -(-ctypes.addressof(held) // ALIGN) * ALIGN


def _before_a_wall(data: bytes) -> tuple[mmap.mmap, int]:
    """The bytes where memory ends, and where they begin: whoever reads on ends the program."""
    size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
    held = mmap.mmap(-1, size + mmap.PAGESIZE)
    wall = ctypes.addressof(ctypes.c_char.from_buffer(held)) + size
    held[size - len(data) : size] = data
    made = ctypes.CDLL(None).mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(mmap.PAGESIZE), 0)
    assert made == 0
    return held, wall - len(data)


@dataclass(frozen=True)
class OpenedInC:
    """A map and its journal, as C holds them."""

    code: Any
    map: _Map
    journal: _Journal
    held: tuple[Any, ...]

    @property
    def places(self) -> int:
        return int(self.journal.places)

    @property
    def torn_bytes(self) -> int:
        return int(self.journal.torn_bytes)

    def tags(self) -> list[bytes]:
        """Tags of the journal's places."""
        found = []
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        for place in range(self.journal.first, self.journal.first + self.journal.places):
            status = self.code.tatvpr_journal_tag(
                ctypes.byref(self.journal),
                ctypes.c_uint64(place),
                ctypes.byref(text),
                ctypes.byref(size),
            )
            assert status == 0
            found.append(ctypes.string_at(text, size.value) if size.value else b"")
        return found

    def search(
        self, descriptor: NDArray[np.float32], k: float, count: int = MOST
    ) -> list[tuple[int, float, list[float]]]:
        """(place, score, pose) of the best, best first."""
        return [(m.place, m.score, list(m.pose)) for m in self.matches(descriptor, k, count)]

    def matches(self, descriptor: NDArray[np.float32], k: float, count: int = MOST) -> list[Hit]:
        """The best, best first."""
        matches = (Hit * count)()
        matches[0].size = ctypes.sizeof(Hit)
        found = ctypes.c_int32()
        query = np.ascontiguousarray(descriptor, np.float32)
        status = self.code.tatvpr_journal_search(
            ctypes.byref(self.map),
            ctypes.byref(self.journal),
            None,
            ctypes.c_void_p(query.ctypes.data),
            ctypes.c_float(k),
            ctypes.c_float(1.0),
            matches,
            ctypes.c_int32(count),
            ctypes.byref(found),
        )
        assert status == 0, status
        return matches[: found.value]


@dataclass(frozen=True)
class OpenedMap:
    """A map as C holds it, and the memory that it lies in."""

    map: _Map
    held: Any

    @property
    def places(self) -> int:
        return int(self.map.places)


def _behind_a_wall(data: bytes) -> tuple[mmap.mmap, int]:
    """The bytes where memory begins: who reads far before them ends the program."""
    wall = 64 << 10
    held = mmap.mmap(-1, wall + len(data))
    at = ctypes.addressof(ctypes.c_char.from_buffer(held)) + wall
    held[wall:] = data
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at - wall), ctypes.c_size_t(wall), 0) == 0
    return held, at


def open_map_in_c(code: Any, data: bytes) -> OpenedMap | int:
    """The map of a file's bytes, or the status that refuses it."""
    held, at = _behind_a_wall(data)
    opened = _Map(size=ctypes.sizeof(_Map))
    status = code.tatvpr_map_open(
        ctypes.byref(opened), ctypes.c_void_p(at), ctypes.c_size_t(len(data)), None
    )
    return OpenedMap(opened, held) if status == 0 else int(status)


def open_in_c(code: Any, base: bytes, journal: bytes) -> OpenedInC | int:
    """The map of two files' bytes, or the status that refuses it.

    Args:
        code: a library of the core, loaded by ctypes.
    """
    whole = open_map_in_c(code, base)
    assert isinstance(whole, OpenedMap), "the base is whole"
    opened = whole.map
    held, at = _before_a_wall(journal)
    given = (ctypes.byref(opened), ctypes.c_void_p(at), ctypes.c_size_t(len(journal)))
    room_bytes = ctypes.c_size_t()
    status = code.tatvpr_journal_bytes(*given, ctypes.byref(room_bytes))
    if status != 0:
        return int(status)
    room, place = _aligned(room_bytes.value)
    made = _Journal(size=ctypes.sizeof(_Journal))
    # Room that is a byte too small is refused, and none of it is written.
    for less in (1, 0):
        size = ctypes.c_size_t(room_bytes.value - less)
        status = code.tatvpr_journal_open(ctypes.byref(made), *given, ctypes.c_void_p(place), size)
        assert not less or (status == ARENA and not any(room.raw)), status
    if status != 0:
        return int(status)
    return OpenedInC(code, opened, made, (whole.held, held, room))
