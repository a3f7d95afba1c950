"""Messages on the service's socket: a JSON object and, where a frame or descriptor goes with it,
raw bytes. Standard library only, because the board's half of deploy asks the service too.

A message is two big-endian u32 (bytes of JSON, bytes of the rest), the JSON, the rest. Requests::

    {"op": "query", "shape": [H, W, 3], "bgr": false, "top": 1}   + the frame, uint8, rows packed
    {"op": "describe", "shape": [H, W, 3], "bgr": false}          + the frame
    {"op": "set", "k": 0.2 | "auto", "tokens": 1.0}
    {"op": "info"}
    {"op": "selftest"}

Answers hold ``"ok": true`` and the result (a descriptor follows as float32, little endian), or
``"ok": false``, ``"error"`` and ``"kind"``, the name of the error's class.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

HEADER = struct.Struct(">II")
MAX_JSON = 1 << 16
#: A frame of 32 megapixels, three channels.
MAX_BLOB = 96 << 20
SOCKET = "serve.sock"


def encode(message: dict[str, Any], blob: bytes | memoryview = b"") -> bytes:
    """The bytes of a message."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    return HEADER.pack(len(data), len(blob)) + data + bytes(blob)


def decode(receive: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None where the other end closed. ``receive(n)`` gives exactly n bytes, or
    fewer where it closed.

    Raises:
        ValueError: longer than any message, or not a JSON object.
    """
    header = receive(HEADER.size)
    if len(header) < HEADER.size:
        return None
    json_bytes, blob_bytes = HEADER.unpack(header)
    if json_bytes > MAX_JSON or blob_bytes > MAX_BLOB:
        raise ValueError(f"a message of {json_bytes} + {blob_bytes} bytes is too long")
    data = receive(json_bytes)
    blob = receive(blob_bytes) if blob_bytes else b""
    if len(data) < json_bytes or len(blob) < blob_bytes:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message, blob


def receiver(connection: socket.socket) -> Callable[[int], bytes]:
    """``receive`` for :func:`decode` from a blocking socket."""

    def receive(count: int) -> bytes:
        buffer = bytearray(count)
        view, have = memoryview(buffer), 0
        while have < count:
            got = connection.recv_into(view[have:])
            if not got:
                break
            have += got
        return bytes(buffer[:have])

    return receive


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name of ``path`` that fits in a socket address (108 bytes), however deep it lies."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
