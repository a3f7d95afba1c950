"""Version 1 of place maps and their journals: read by ``tatvpr-edge map upgrade`` alone.

The layout is what docs/placemap-format.md said up to version 1. Nothing here is used for queries.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tatvpr_edge.runtime.mapjournal import journal_path
from tatvpr_edge.runtime.signed_release import refuse_rewriting
from tatvpr_edge.spec.atomic import sync_folder
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapfiles import explain, followed, plain, writing
from tatvpr_edge.spec.maptypes import (
    F64,
    KINDS,
    MOMENT,
    QUATERNION_SLACK,
    Band,
    MapInfo,
    Places,
    Rows,
    check_info,
    known_poses,
)
from tatvpr_edge.spec.placemap import MAGIC, read_base, write_map

_HEADER = struct.Struct("<8sIIQII32sIIIIQIIQQQII")
_BAND = struct.Struct("<fffIQQ32s")
_JOURNAL_BYTES = 64
_ONE = struct.pack("<I", 1)
_ROW = {"int8": "i1", "binary": "u1"}


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did.

    Attributes:
        places: how many the map holds.
        dropped_turns: places whose orientation was no rotation and is unknown now.
    """

    places: int
    dropped_turns: int


def upgrade(path: str | Path) -> Upgraded | None:
    """Write the version 1 map at ``path``, its journal folded in, as version 2 in its place.

    Returns:
        None where the map is of version 2 already.

    Raises:
        MapError: it is damaged, or cannot be written; the old map then stands as it was.
    """
    path = followed(path)
    journal = journal_path(path)
    with writing(path):
        # Not before: another upgrade may just have folded the journal in, and removed it.
        try:
            with plain(path) as source:
                data = source.read()
        except OSError as error:
            raise MapError(f"cannot read the map {path}: {explain(error)}") from None
        if data[:8] == MAGIC and data[8:12] != _ONE:
            if _first(journal, 12)[8:] == _ONE:  # an upgrade was cut between its last two steps
                _put_away(journal, path)
            return None
        try:
            info, old = _read_base(data)
            if journal.exists():
                with plain(journal) as source:
                    old = Places.joined([old, _read_journal(source.read(), data, info)])
            places, dropped = _renewed(old)
        except (struct.error, ValueError, IndexError, OverflowError):
            raise MapError(f"map {path} is damaged and cannot be upgraded: make it again") from None
        except OSError as error:
            raise MapError(f"cannot read {journal}: {explain(error)}") from None
        except MapError as error:
            raise MapError(f"map {path}: {error}") from None
        refuse_rewriting(path)
        write_map(path, info, [places])
        journal.unlink(missing_ok=True)
        sync_folder(path.parent)
    return Upgraded(len(places), dropped)


def _put_away(journal: Path, path: Path) -> None:
    """Remove a journal of version 1 whose places are the last ones of the map at ``path``; keep one
    of others as ``.v1``."""
    base = read_base(path)
    try:
        with plain(journal) as source:
            added = _read_records(source.read(), base.info)
    except (struct.error, ValueError, IndexError):
        added = None
    first = len(base) if added is None else len(base) - len(added)
    if (
        added is not None
        and first >= 0
        and tuple(base.tag(place) for place in range(first, len(base))) == added.tags
        and all(
            np.array_equal(mine.data[first:], theirs.data)
            for mine, theirs in zip(base.rows, added.rows, strict=True)
        )
    ):
        journal.unlink()
    else:
        os.replace(journal, f"{journal}.v1")
    sync_folder(path.parent)


def _first(path: Path, count: int) -> bytes:
    try:
        with plain(path) as source:
            return source.read(count)
    except OSError:
        return b""


def _read_base(data: bytes) -> tuple[MapInfo, Places]:
    fields = _HEADER.unpack_from(data)
    magic, _, header_bytes, size, _, _, model_hash, kind_code, dim = fields[:9]
    places, bands, frame, poses, tags, tags_bytes, payload_crc, header_crc = fields[11:]
    if magic != MAGIC:
        raise MapError("this is no place map: wrong first bytes")
    header = data[:124] + bytes(4) + data[_HEADER.size : header_bytes]
    if size != len(data) or zlib.crc32(header) != header_crc:
        raise MapError("truncated, or its header was altered: make it again")
    if zlib.crc32(data[header_bytes:]) != payload_crc:
        raise MapError("its places were altered (checksum): make it again")
    kind = {KINDS[name]: name for name in _ROW}[kind_code]
    starts = range(_HEADER.size, header_bytes, _BAND.size)
    table = [_BAND.unpack_from(data, at) for at in starts]
    info = MapInfo(
        model_hash.hex(),
        kind,
        dim,
        tuple(_band(*entry[:3]) for entry in table),
        ("local", "utm")[frame],
    )
    check_info(info)
    if len(table) != bands:
        raise ValueError("bands")
    rows = []
    for entry in table:
        stored = np.frombuffer(data, _ROW[kind], places * info.row_bytes, entry[4])
        norms = np.frombuffer(data, "<f4", places, entry[5]) if kind == "int8" else None
        rows.append(Rows(stored.reshape(places, info.row_bytes), norms))
    ends = np.frombuffer(data, "<u8", places + 1, tags).astype(int).tolist()
    text = data[tags + 8 * (places + 1) : tags + tags_bytes]
    names = [text[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends)]
    return info, _old(rows, np.frombuffer(data, "<f8", places * 7, poses).reshape(-1, 7), names)


def _band(k: float, tokens: float, threshold: float) -> Band:
    k, tokens, limit = (float(str(np.float32(value))) for value in (k, tokens, threshold))
    return Band.accepting(k, tokens, limit if math.isfinite(limit) else None)


def _read_journal(data: bytes, base: bytes, info: MapInfo) -> Places:
    binding = base[120:124] + bytes(4) + base[16:24] + base[32:64]
    if data[:12] != b"TVPRJRN1" + _ONE or data[16:_JOURNAL_BYTES] != binding:
        raise MapError("its journal belongs to another map: bring that map back, or remove it")
    return _read_records(data, info)


def _read_records(data: bytes, info: MapInfo) -> Places:
    """Whole records of a journal of version 1: u32 bytes, u32 crc32, u32 places, places."""
    kind = _ROW[info.kind]
    per_row = info.row_bytes + (4 if info.kind == "int8" else 0)
    fixed = per_row * len(info.bands) + 56
    heads, tags, at = [], [], _JOURNAL_BYTES
    while at + 12 <= len(data):
        length, crc, count = struct.unpack_from("<III", data, at)
        if length < 4 or zlib.crc32(data[at + 8 : at + 8 + length]) != crc:
            break  # what an append left that never finished
        at += 12
        for _ in range(count):
            heads.append(data[at : at + fixed])
            (size,) = struct.unpack_from("<I", data, at + fixed)
            at += fixed + 4 + size
            tags.append(data[at - size : at].decode())
    table = np.frombuffer(b"".join(heads), np.uint8).reshape(len(tags), fixed)
    rows = []
    for first in range(0, per_row * len(info.bands), per_row):
        stored = np.ascontiguousarray(table[:, first : first + info.row_bytes]).view(kind)
        norms = np.ascontiguousarray(table[:, first + info.row_bytes : first + per_row])
        rows.append(Rows(stored, norms.view("<f4").reshape(-1) if info.kind == "int8" else None))
    return _old(rows, np.ascontiguousarray(table[:, -56:]).view("<f8").reshape(-1, 7), tags)


def _old(rows: list[Rows], poses: F64, tags: list[str]) -> Places:
    """Places of version 1, which knew no moments."""
    return Places(tuple(rows), poses, tuple(tags), np.zeros(len(tags), MOMENT))


def _renewed(old: Places) -> tuple[Places, int]:
    """Version 1 allowed any number: norms must be right; a turn that is none becomes unknown."""
    for part in old.rows:
        if part.norms is not None and not ((part.norms > 0) & (part.norms <= 1)).all():
            raise MapError("a descriptor's norm is not in (0, 1]: make the map again")
    poses = old.poses.copy()
    poses[~np.isfinite(poses)] = np.nan
    length = np.sqrt((poses[:, 3:] ** 2).sum(axis=1))
    dropped = ~(np.abs(length - 1) <= QUATERNION_SLACK)
    were_there = ~np.isnan(poses[:, 3:]).all(axis=1)
    poses[dropped, 3:] = np.nan
    moments = old.moments.copy()
    moments["order"] = np.arange(len(poses))
    poses, moments["known"] = known_poses(poses, len(poses), "local")
    places = replace(old, poses=poses, moments=moments)
    return places, int((dropped & were_there).sum())
