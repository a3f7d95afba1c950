"""Messages on the service's socket: a JSON object and, where a frame or descriptor goes with it,
raw bytes. Standard library only, because the board's half of deploy asks the service too.

A message is two big-endian u32 (bytes of JSON, bytes of the rest), the JSON, the rest. Requests::

    {"op": "query", "format": "RGB888", "width": W, "height": H, "planes": [[rows, bytes]],
     "top": 1, "near": [x, y], "radius": metres, "exclude_last": 20 | "30s", "time_s": seconds}
                                                                + the planes, rows packed
    {"op": "add", "format": ..., "planes": ..., "pose": [x, y], "tag": "", "novelty": 0.9,
     "novelty_m": metres, "max_places": N, "max_bytes": N, "time_s": seconds}   + the planes
    {"op": "confirm", "place": N, "mark": what the query's answer gave beside its match}
    {"op": "describe", "format": ..., "width": W, "height": H, "planes": ...}   + the planes
    {"op": "set", "k": 0.2 | "auto", "tokens": 1.0, "budget": "5W", "preset": "turbo",
     "map": "/absolute/path.placemap"}
    {"op": "info"}
    {"op": "selftest"}

Answers hold ``"ok": true``, ``"release"`` (what answers, one word) and the result (a descriptor
follows as float32, little endian), or ``"ok": false``, ``"error"`` and ``"kind"``, the name of the
error's class. What is not known of a position, or as the time of a place, is null, which NaN would
not be in JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.text import parse_json, without_nan

HEADER = struct.Struct(">II")
#: Of a request, a place's longest tag with every byte escaped among it; answers list as many
#: candidates as were asked for.
MAX_JSON = 1 << 19
#: A frame of 32 megapixels, three channels.
MAX_BLOB = 96 << 20
SOCKET = "serve.sock"
#: Memory for bytes that were announced grows with those that came.
_PIECE = 1 << 20


def encode(message: dict[str, Any], blob: bytes | memoryview = b"") -> bytes:
    """The bytes of a message.

    Raises:
        UsageError: it holds what is no number, text or list of them.
    """
    words = without_nan(message)
    text = json.dumps(words, separators=(",", ":"), allow_nan=False, default=_number)
    return HEADER.pack(len(text), len(blob)) + text.encode("ascii") + bytes(blob)


def _number(value: Any) -> int | float | None:
    """A number that JSON does not know as one, such as NumPy's."""
    for kind in (operator.index, float):
        with contextlib.suppress(TypeError, ValueError):
            found: int | float | None = without_nan(kind(value))
            return found
    raise UsageError(f"a {type(value).__name__} cannot be sent to a service: give numbers or text")


def decode(
    receive: Callable[[int], bytes], max_json: int = MAX_JSON, max_blob: int = MAX_BLOB
) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None where the other end closed. ``receive(n)`` gives exactly n bytes, or
    fewer where it closed.

    Raises:
        ValueError: longer than any message, or not a JSON object.
    """
    header = receive(HEADER.size)
    if len(header) < HEADER.size:
        return None
    json_bytes, blob_bytes = HEADER.unpack(header)
    if json_bytes > max_json or blob_bytes > max_blob:
        raise ValueError(f"a message of {json_bytes} + {blob_bytes} bytes is too long")
    data = receive(json_bytes)
    blob = receive(blob_bytes) if blob_bytes else b""
    if len(data) < json_bytes or len(blob) < blob_bytes:
        return None
    message = parse_json(data)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")
    return message, blob


def decode_answer(receive: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes] | None:
    """As :func:`decode`, for what a service answers: as long as what was asked for."""
    return decode(receive, max_json=2**32 - 1, max_blob=2**32 - 1)


def receiver(connection: socket.socket, within_s: float | None = None) -> Callable[[int], bytes]:
    """``receive`` for :func:`decode` from a blocking socket; it raises TimeoutError where not
    everything came ``within_s``, be it that something comes all the time. What lies there whole
    when that is over is still taken: this program may have been held up itself."""
    end = None if within_s is None else time.monotonic() + within_s

    def receive(count: int) -> bytes:
        buffer = bytearray()
        while len(buffer) < count:
            left_s = math.inf if end is None else end - time.monotonic()
            if end is not None:
                connection.settimeout(max(1e-3, left_s))
            wanted = min(count - len(buffer), _PIECE)
            piece = connection.recv(wanted)
            if not piece:
                break
            buffer += piece
            if left_s <= 0 and len(piece) < wanted:
                raise TimeoutError(f"a message did not end within {within_s:g} s")
        return bytes(buffer)

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
