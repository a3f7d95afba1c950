"""The journal of a place map: places added since its base file was written.

``M.journal`` beside ``M``: a header that binds it to one base file, then one record an append.
A record is synced before the call returns, and holds all places of that call, so that a power cut
leaves all of them or none. A last record that was cut short is not there; the next append writes
over it. ``compact`` writes a new base file and removes the journal.

Writers lock the base file (``flock``), readers too while they open base and journal together.
Little endian::

    header   8s "TVPRJRN1", u32 version 1, u32 crc32 of the next 48 bytes,
             u32 payload crc32 of the base, u32 0, u64 bytes of the base, 32s model hash
    record   u32 length, u32 crc32 of the rest, u32 places, places times:
             for each band: descriptor, float32 norm (int8 only); float64 pose [7];
             u32 bytes of the tag, tag
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import MapError
from .placemap import (
    Base,
    MapInfo,
    Places,
    Rows,
    explain,
    read_base,
    replacing,
    sync_folder,
    write_map,
)

MAGIC = b"TVPRJRN1"
VERSION = 1
_HEADER = struct.Struct("<8sII48s")
_BINDING = struct.Struct("<IIQ32s")
_RECORD = struct.Struct("<III")
_U32 = struct.Struct("<I")


def journal_path(path: str | Path) -> Path:
    """Where the journal of the map at ``path`` lies."""
    return Path(f"{path}.journal")


@dataclass(frozen=True)
class StoredMap:
    """A base file and what its journal adds."""

    base: Base
    added: Places
    #: Bytes at the end of the journal that belong to an append which never finished.
    torn_bytes: int = 0
    #: Whether a journal counts (one that compaction absorbed and did not remove does not).
    journalled: bool = False

    def __len__(self) -> int:
        return len(self.base) + len(self.added)


def read_map(path: str | Path) -> StoredMap:
    """Open a map and its journal.

    Raises:
        MapError: either is damaged, or the journal belongs to another base file.
    """
    with _locked(path, fcntl.LOCK_SH):
        return _read_locked(path)[0]


def append(path: str | Path, places: Places) -> None:
    """Add ``places`` to the map at ``path``: all of them or, on any failure, none.

    Raises:
        MapError: the map cannot be read or written, or the places have other bands or sizes.
    """
    with _locked(path, fcntl.LOCK_EX):
        stored, end = _read_locked(path)
        _check_fits(stored.base.info, places)
        record = _encode_record(places)
        journal = journal_path(path)
        try:
            if not stored.journalled:
                with replacing(journal) as sink:
                    sink.write(_encode_header(stored.base))
                end = _HEADER.size
            with open(journal, "r+b", buffering=0) as sink:
                sink.truncate(end)
                sink.seek(end)
                try:
                    _write_all(sink.fileno(), record)
                    os.fsync(sink.fileno())
                except OSError:
                    sink.truncate(end)
                    raise
        except OSError as error:
            raise MapError(f"cannot add to the map {path}: {explain(error)}") from error


def compact(path: str | Path) -> None:
    """Fold the journal into a new base file. Without a journal, nothing happens."""
    with _locked(path, fcntl.LOCK_EX):
        stored, _ = _read_locked(path)
        if stored.journalled:
            write_map(path, stored.base.info, [stored.base.places(), stored.added])
        with contextlib.suppress(FileNotFoundError):
            journal_path(path).unlink()
            sync_folder(Path(path).parent)


# ---- locks -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: str | Path, mode: int) -> Iterator[None]:
    """Hold a lock on the base file that stands at ``path`` (compaction may replace it)."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MapError(f"cannot read the map {path}: {explain(error)}") from None
        try:
            fcntl.flock(descriptor, mode)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                yield
                return
        except FileNotFoundError:
            raise MapError(f"the map {path} was removed") from None
        finally:
            os.close(descriptor)


# ---- reading ---------------------------------------------------------------------------------


def _read_locked(path: str | Path) -> tuple[StoredMap, int]:
    """The map, and where in its journal the next record goes."""
    base = read_base(path)
    nothing = Places(
        tuple(
            Rows(rows.data[:0], None if rows.norms is None else rows.norms[:0])
            for rows in base.rows
        ),
        np.zeros((0, 7)),
        (),
    )
    journal = journal_path(path)
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return StoredMap(base, nothing), 0
    except OSError as error:
        raise MapError(f"cannot read {journal}: {explain(error)}") from None
    binding = _check_header(data, journal)
    added, end = _records(data, base.info, journal)
    if binding != _binding(base):
        if _absorbed(base, added):
            return StoredMap(base, nothing), 0
        raise MapError(
            f"{journal} belongs to another map than {path}: bring that map back, or remove the "
            "journal (the places in it are lost)"
        )
    return StoredMap(base, added or nothing, len(data) - end, True), end


def _binding(base: Base) -> bytes:
    return _BINDING.pack(base.payload_crc, 0, base.file_bytes, bytes.fromhex(base.info.model_hash))


def _encode_header(base: Base) -> bytes:
    binding = _binding(base)
    return _HEADER.pack(MAGIC, VERSION, zlib.crc32(binding), binding)


def _check_header(data: bytes, journal: Path) -> bytes:
    if len(data) < _HEADER.size:
        raise MapError(f"{journal} is truncated inside its header: remove it")
    magic, version, crc, binding = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise MapError(f"{journal} is no journal of a map: remove it")
    if version != VERSION:
        raise MapError(f"{journal}: version {version} is not {VERSION}: update tatvpr-edge")
    if zlib.crc32(binding) != crc:
        raise MapError(f"{journal} was altered in its header: remove it")
    return binding


def _absorbed(base: Base, added: Places | None) -> bool:
    """Whether ``base`` ends with these places: compaction was cut before it removed the journal."""
    count = len(added) if added else 0
    if added is None or count > len(base):
        return added is None
    first = len(base) - count
    return (
        all(
            np.array_equal(mine.data[first:], theirs.data)
            for mine, theirs in zip(base.rows, added.rows, strict=True)
        )
        and np.array_equal(base.poses[first:], added.poses, equal_nan=True)
        and all(base.tag(first + index) == tag for index, tag in enumerate(added.tags))
    )


def _records(data: bytes, info: MapInfo, journal: Path) -> tuple[Places | None, int]:
    """Places of every whole record, and where the last of them ends."""
    records, at = [], _HEADER.size
    while (length := _whole_record(data, at)) is not None:
        try:
            records.append(_decode_record(data[at + 8 : at + 8 + length], info))
        except (struct.error, ValueError):
            raise MapError(f"{journal} holds places of another size or kind: remove it") from None
        at += 8 + length
    if at + 8 <= len(data):
        # A cut append is the last thing in a journal: if a whole record follows, it was altered.
        length = _U32.unpack_from(data, at)[0]
        if _whole_record(data, at + 8 + length) is not None:
            raise MapError(f"{journal} was altered at byte {at}: bring back a copy, or remove it")
    return _join(records), at


def _whole_record(data: bytes, at: int) -> int | None:
    """Length of the body of the record at ``at``; None where there is no whole one."""
    if at + _RECORD.size > len(data):
        return None
    length, crc, _ = _RECORD.unpack_from(data, at)
    body = data[at + 8 : at + 8 + length]
    whole = length >= 4 and len(body) == length and zlib.crc32(body) == crc
    return length if whole else None


def _join(records: list[Places]) -> Places | None:
    if not records:
        return None
    bands = []
    for parts in zip(*(record.rows for record in records), strict=True):
        norms = [part.norms for part in parts if part.norms is not None]
        data = np.concatenate([part.data for part in parts])
        bands.append(Rows(data, np.concatenate(norms) if norms else None))
    poses = np.concatenate([record.poses for record in records])
    return Places(tuple(bands), poses, tuple(tag for record in records for tag in record.tags))


# ---- records ---------------------------------------------------------------------------------


def _check_fits(info: MapInfo, places: Places) -> None:
    if len(places.rows) != len(info.bands) or any(
        rows.data.shape[1] != info.row_bytes or (rows.norms is not None) != (info.kind == "int8")
        for rows in places.rows
    ):
        raise MapError("these places have other bands, kind or size than the map")


def _encode_record(places: Places) -> bytes:
    parts = [_U32.pack(len(places))]
    for index in range(len(places)):
        for rows in places.rows:
            parts.append(rows.data[index].tobytes())
            if rows.norms is not None:
                parts.append(np.asarray(rows.norms[index], "<f4").tobytes())
        parts.append(np.asarray(places.poses[index], "<f8").tobytes())
        tag = places.tags[index].encode()
        parts += [_U32.pack(len(tag)), tag]
    body = b"".join(parts)
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def _decode_record(body: bytes, info: MapInfo) -> Places:
    kind = np.dtype("i1" if info.kind == "int8" else "u1")
    per_row = info.row_bytes + (4 if info.kind == "int8" else 0)
    fixed = per_row * len(info.bands) + 56
    (count,) = _U32.unpack_from(body)
    at, heads, tags = 4, [], []
    for _ in range(count):
        heads.append(body[at : at + fixed])
        (size,) = _U32.unpack_from(body, at + fixed)
        at += fixed + 4 + size
        if at > len(body):
            raise ValueError("a place leaves its record")
        tags.append(body[at - size : at].decode("utf-8"))
    if at != len(body):
        raise ValueError("bytes are left over")
    table = np.frombuffer(b"".join(heads), np.uint8).reshape(count, fixed)
    bands = []
    for index in range(len(info.bands)):
        columns = np.ascontiguousarray(table[:, index * per_row : (index + 1) * per_row])
        data = np.ascontiguousarray(columns[:, : info.row_bytes]).view(kind)
        norms = np.ascontiguousarray(columns[:, info.row_bytes :]).view("<f4").reshape(-1)
        bands.append(Rows(data, norms if info.kind == "int8" else None))
    poses = np.ascontiguousarray(table[:, -56:]).view("<f8").reshape(count, 7)
    return Places(tuple(bands), poses, tuple(tags))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
