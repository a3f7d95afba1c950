"""A journal as a file: what it begins with, where it ends, and one more record.

:mod:`tatvpr_edge.runtime.mapjournal` says what a journal is for. Little endian::

    header   8s "TVPRJRN1", u32 version 2, u32 crc32 of the next 48 bytes,
             u32 payload crc32 of the base, u32 0, u64 bytes of the base, 32s model hash
    records  as :mod:`tatvpr_edge.runtime.journalrecords` writes them
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from tatvpr_edge.runtime.journalrecords import HEAD, TAIL, whole_record
from tatvpr_edge.spec.atomic import write_all
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapfiles import plain
from tatvpr_edge.spec.placemap import Base, Header

MAGIC = b"TVPRJRN1"
VERSION = 2
HEADER = struct.Struct("<8sII48s")
_BINDING = struct.Struct("<IIQ32s")


def binding_of(of: Base | Header) -> bytes:
    """What a journal's header says of its base file."""
    size = of.file_bytes if isinstance(of, Base) else of.layout.file_bytes
    return _BINDING.pack(of.payload_crc, 0, size, bytes.fromhex(of.info.model_hash))


def model_of(binding: bytes) -> str:
    """The hash of the model that a binding names."""
    model: bytes = _BINDING.unpack(binding)[3]
    return model.hex()


def header(binding: bytes) -> bytes:
    """What a journal of that base file begins with."""
    return HEADER.pack(MAGIC, VERSION, zlib.crc32(binding), binding)


def check_header(data: bytes, journal: Path) -> bytes:
    """The binding of the journal that ``data`` is.

    Raises:
        MapError: it is none, of another version, or was altered.
    """
    if len(data) < HEADER.size:
        raise MapError(f"{journal} is truncated inside its header: remove it")
    magic, version, crc, binding = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise MapError(f"{journal} is no journal of a map: remove it")
    if version == 1:
        raise MapError(
            f"{journal} is of format version 1: bring the map up to date with 'tatvpr-edge map "
            "upgrade'"
        )
    if version != VERSION:
        raise MapError(f"{journal}: version {version} is not {VERSION}: update tatvpr-edge")
    if zlib.crc32(binding) != crc:
        raise MapError(f"{journal} was altered in its header: remove it")
    return bytes(binding)


def last_record(journal: Path, binding: bytes) -> tuple[int, int] | None:
    """(end, places) of a journal of this base that ends with a whole record, from that alone."""
    try:
        with plain(journal) as source:
            size = os.fstat(source.fileno()).st_size
            start = source.read(HEADER.size)
            if size < HEADER.size or start != header(binding):
                return None
            if size == HEADER.size:
                return size, 0
            source.seek(size - TAIL.size)
            _, length = TAIL.unpack(source.read(TAIL.size))
            if not HEAD.size + TAIL.size <= length <= size - HEADER.size:
                return None
            source.seek(size - length)
            record = source.read(length)
    except FileNotFoundError:
        return None
    if whole_record(record, 0) != length:
        return None
    _, _, before, count = HEAD.unpack_from(record)
    return size, before + count


def keep_torn(journal: Path, aside_path: Path, end: int) -> None:
    """Move what an unfinished append left behind ``end`` to another file, not away."""
    with plain(journal) as source:
        source.seek(end)
        torn = source.read()
        mode = os.fstat(source.fileno()).st_mode & 0o777
    if torn:
        with plain(aside_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode) as aside:
            write_all(aside.fileno(), torn)
            os.fsync(aside.fileno())


def write_record(journal: Path, end: int, record: bytes) -> None:
    """Write ``record`` at ``end``, on the disk when this returns, or not at all."""
    with plain(journal, os.O_RDWR) as sink:
        sink.truncate(end)
        sink.seek(end)
        try:
            write_all(sink.fileno(), record)
            os.fsync(sink.fileno())
        except OSError:
            sink.truncate(end)
            raise
