"""Frames on the pipe between the host and the board's agent. Both ends use this module.

A frame is one byte of kind (``J`` a JSON object, ``Z`` one that zlib packed, ``D`` raw bytes of a
file), four bytes of length (big endian) and the payload. Everything that names anything (paths,
keys, versions) travels inside JSON, never on a command line. The agent first prints ``MAGIC`` and a
nonce that the host chose, so that whatever a login shell printed before it is skipped, and
recognised as not ours.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tatvpr_edge.spec.text import parse_json

MAGIC = b"\ntatvpr-edge agent "
VERSION = 1
JSON = b"J"
PACKED = b"Z"
DATA = b"D"
CHUNK = 1 << 20
MAX_FRAME = 16 << 20
#: How much noise before MAGIC is read before giving up.
MAX_NOISE = 4 << 20
_PACK_FROM = 4096
_HEADER = struct.Struct(">cI")

#: Returns exactly that many bytes, or b"" where the other end is gone.
ReadExactly = Callable[[int], bytes]


class ProtocolError(Exception):
    """The other end does not speak this protocol."""


def json_frame(message: Any) -> bytes:
    """A JSON frame; packed where that pays."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_FRAME:
        raise ProtocolError("message too long")
    kind = JSON
    if len(data) >= _PACK_FROM:
        kind, data = PACKED, zlib.compress(data, 9)
    return _HEADER.pack(kind, len(data)) + data


def data_header(length: int) -> bytes:
    """The five bytes before ``length`` raw bytes."""
    return _HEADER.pack(DATA, length)


def read_header(read: ReadExactly) -> tuple[bytes, int]:
    """Kind of the next frame and bytes of its payload; (b"", 0) where the other end is gone.

    Raises:
        ProtocolError: unknown kind, or too long.
    """
    header = read(_HEADER.size)
    if not header:
        return b"", 0
    kind, length = _HEADER.unpack(header)
    if kind not in (JSON, PACKED, DATA) or length > MAX_FRAME:
        raise ProtocolError("unexpected bytes on the connection: " + repr(header))
    return kind, length


def read_frame(read: ReadExactly) -> tuple[bytes, Any]:
    """The next frame: (JSON, object) or (DATA, bytes); (b"", None) where the other end is gone.

    Raises:
        ProtocolError: unknown kind, too long, or not JSON.
    """
    kind, length = read_header(read)
    if not kind:
        return b"", None
    payload = read(length) if length else b""
    if length and not payload:
        return b"", None
    if kind == DATA:
        return DATA, payload
    if kind == PACKED:
        payload = _unpacked(payload)
    try:
        message = parse_json(payload)
    except ValueError:
        raise ProtocolError("a message is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message is not an object")
    return JSON, message


def _unpacked(payload: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(payload, MAX_FRAME)
    except zlib.error:
        raise ProtocolError("a packed message is broken") from None
    if not unpacker.eof or unpacker.unused_data:
        raise ProtocolError("a packed message is broken, or too long")
    return data
