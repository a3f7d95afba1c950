"""The agent's end of the connection: frames in on one descriptor, frames out on another.

Runs on the board (standard library only). The host may vanish at any byte: reading then says so,
writing goes on without effect, so that a switch in progress is finished or taken back, never left.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from typing import Any

from tatvpr_edge.spec.errors import DeployError

from .protocol import CHUNK, DATA, JSON, json_frame, read_frame, read_header

_ALIVE_S = 1.0
#: How long the host may be silent: while it holds the lock, which others wait for, and before, when
#: a person there may be asked for a passphrase and be out to lunch.
LOCKED_S = 300.0
_UNLOCKED_S = 8 * 3600.0


class HostGone(Exception):
    """The host ended the connection, or was silent for too long."""


class Channel:
    """Frames over two descriptors. ``idle_s``: how long the host may be silent."""

    def __init__(self, receive: int, send: int) -> None:
        self._receive = receive
        self._send = send
        self.idle_s = _UNLOCKED_S
        self._ahead = b""
        self._sent = time.monotonic()
        self._ended = False

    def next(self) -> dict[str, Any] | None:
        """The host's next message; None when it ended the connection between two."""
        kind, message = read_frame(self._read)
        if kind == DATA:
            raise DeployError("the host sent a file's bytes where a message was due")
        return message if kind == JSON else None

    def chunks(self, total: int) -> Iterator[memoryview]:
        """The next data frames, ``total`` bytes together; each piece holds until the next is asked
        for, because all of them use the same memory.

        Raises:
            HostGone: the host ended before them.
        """
        room = memoryview(bytearray(min(total, CHUNK)))
        while total > 0:
            kind, length = read_header(self._read)
            if not kind:
                raise HostGone
            if kind != DATA or not 0 < length <= total:
                raise DeployError("the host sent something else where a file's bytes were due")
            total -= length
            while length:
                piece = room[:length]
                if not self._fill(piece):
                    raise HostGone
                length -= len(piece)
                yield piece

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a host that is gone does not matter here."""
        data = memoryview(json_frame(message))
        self._sent = time.monotonic()
        while data and not self._ended:
            try:
                data = data[os.write(self._send, data) :]
            except OSError:
                self._ended = True

    def alive(self) -> None:
        """Tell the host that work goes on, at most once a second."""
        if time.monotonic() - self._sent > _ALIVE_S:
            self.send({"event": "alive"})

    def host_gone(self) -> bool:
        """Whether the host ended the connection (it is not waited for)."""
        if not self._ended and not self._ahead and select.select([self._receive], [], [], 0)[0]:
            self._ahead = os.read(self._receive, 1)
            self._ended = not self._ahead
        return self._ended

    def _read(self, count: int) -> bytes:
        """Exactly ``count`` bytes, or b"" when the host ended (also in the middle)."""
        buffer = bytearray(count)
        return bytes(buffer) if self._fill(memoryview(buffer)) else b""

    def _fill(self, view: memoryview) -> bool:
        """Read until ``view`` is full; False when the host ended before."""
        if self._ended:
            return False
        if self._ahead:
            view[0:1], self._ahead = self._ahead, b""
            view = view[1:]
        while view:
            ready = select.select([self._receive], [], [], self.idle_s)[0]
            got = os.readv(self._receive, [view]) if ready else 0
            if not got:
                self._ended = True
                return False
            view = view[got:]
        return True
