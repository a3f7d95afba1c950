"""Records of a map's journal: places as bytes, and bytes as places.

Called by ``mapjournal``, which knows the files. Little endian::

    record   4s "PLCS", u32 bytes of the record, u32 places before it, u32 places in it,
             places times: for each band: descriptor, float32 norm (int8 only);
                           float64 pose [7]; moment (16 bytes); u32 bytes of the tag, tag;
             u32 crc32 of everything before, u32 bytes of the record again
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import MOMENT, MapInfo, Places, Rows, encode_tag, with_unknowns
from tatvpr_edge.spec.placemap import check_numbers, stored_poses

_RECORD_MAGIC = b"PLCS"
HEAD = struct.Struct("<4sIII")
TAIL = struct.Struct("<II")
_U32 = struct.Struct("<I")


def read_records(data: bytes, at: int, info: MapInfo, journal: Path | str) -> tuple[Places, int]:
    """Places of every whole record in a journal's bytes, from ``at`` on, and where the last of them
    ends.

    Raises:
        MapError: a record was altered (a whole one follows it), records are missing, or they are
            of another size or kind than ``info``.
    """
    heads, tags = bytearray(), list[str]()
    view = memoryview(data)
    try:
        while length := whole_record(data, at):
            _, _, before, places = HEAD.unpack_from(data, at)
            if before != len(tags):
                raise MapError(f"it lacks places before byte {at}: bring back a copy")
            _split(view[at + HEAD.size : at + length - TAIL.size], places, info, heads, tags)
            at += length
        _refuse_whole_after(data, at)
        return _decode_places(heads, tags, info), at
    except (struct.error, ValueError):
        raise MapError(f"{journal} holds places of another size or kind: remove it") from None
    except MapError as error:
        raise MapError(f"{journal}: {error}") from None


def whole_record(data: bytes, at: int) -> int:
    """Bytes of the record at ``at``; 0 where there is no whole one."""
    if at + HEAD.size + TAIL.size > len(data):
        return 0
    magic, length, _, _ = HEAD.unpack_from(data, at)
    end = at + length
    if magic != _RECORD_MAGIC or length < HEAD.size + TAIL.size or end > len(data):
        return 0
    crc, again = TAIL.unpack_from(data, end - TAIL.size)
    if again != length or zlib.crc32(memoryview(data)[at : end - TAIL.size]) != crc:
        return 0
    return int(length)


def _refuse_whole_after(data: bytes, at: int) -> None:
    """A cut append is the last thing in a journal: if a whole record follows, it was altered."""
    next_one = data.find(_RECORD_MAGIC, at + 1)
    while next_one >= 0:
        if whole_record(data, next_one):
            raise MapError(f"it was altered at byte {at}: bring back a copy, or remove it")
        next_one = data.find(_RECORD_MAGIC, next_one + 1)


def encode_record(places: Places, before: int) -> bytes:
    """One record of a journal that holds ``before`` places already."""
    poses = stored_poses(places.poses)
    parts = []
    for index in range(len(places)):
        for rows in places.rows:
            parts.append(rows.data[index].tobytes())
            if rows.norms is not None:
                parts.append(np.asarray(rows.norms[index], "<f4").tobytes())
        parts += [poses[56 * index : 56 * index + 56], places.moments[index].tobytes()]
        tag = encode_tag(places.tags[index])
        parts += [_U32.pack(len(tag)), tag]
    length = HEAD.size + sum(map(len, parts)) + TAIL.size
    if length >= 2**32:
        raise MapError(f"{len(places)} places are too many to add at once: add fewer")
    record = HEAD.pack(_RECORD_MAGIC, length, before, len(places)) + b"".join(parts)
    return record + TAIL.pack(zlib.crc32(record), length)


def record_bytes(info: MapInfo, tag: str) -> int:
    """Bytes of a record of one place."""
    return HEAD.size + _fixed_bytes(info)[1] + _U32.size + len(encode_tag(tag)) + TAIL.size


def no_places(info: MapInfo) -> Places:
    """No places at all, of the shape that ``info`` asks for."""
    return _decode_places(b"", [], info)


def _fixed_bytes(info: MapInfo) -> tuple[int, int]:
    """Bytes of one band of a place, and of everything of a place before its tag."""
    per_row = info.row_bytes + (4 if info.kind == "int8" else 0)
    return per_row, per_row * len(info.bands) + 56 + MOMENT.itemsize


def _split(body: memoryview, count: int, info: MapInfo, heads: bytearray, tags: list[str]) -> None:
    """Add the ``count`` places of a record: everything before their tags, and these. Nothing of a
    place is held by itself, which a large journal would leave behind in memory in small pieces."""
    _, fixed = _fixed_bytes(info)
    at = 0
    for _ in range(count):
        heads += body[at : at + fixed]
        (size,) = _U32.unpack_from(body, at + fixed)
        at += fixed + 4 + size
        if at > len(body):
            raise ValueError("a place leaves its record")
        tags.append(str(body[at - size : at], "utf-8"))
    if at != len(body):
        raise ValueError("bytes are left over")


def _decode_places(heads: bytes | bytearray, tags: Sequence[str], info: MapInfo) -> Places:
    per_row, fixed = _fixed_bytes(info)
    table = np.frombuffer(heads, np.uint8).reshape(len(tags), fixed)
    kind = np.dtype("i1" if info.kind == "int8" else "u1")
    bands = []
    for index in range(len(info.bands)):
        columns = np.ascontiguousarray(table[:, index * per_row : (index + 1) * per_row])
        data = np.ascontiguousarray(columns[:, : info.row_bytes]).view(kind)
        norms = np.ascontiguousarray(columns[:, info.row_bytes :]).view("<f4").reshape(-1)
        bands.append(Rows(data, norms if info.kind == "int8" else None))
    moments = np.ascontiguousarray(table[:, -MOMENT.itemsize :]).view(MOMENT).reshape(-1)
    poses = np.ascontiguousarray(table[:, -MOMENT.itemsize - 56 : -MOMENT.itemsize])
    stored = poses.view("<f8").reshape(len(tags), 7)
    check_numbers(info, tuple(bands), stored, moments)
    return Places(tuple(bands), with_unknowns(stored, moments["known"]), tuple(tags), moments)
