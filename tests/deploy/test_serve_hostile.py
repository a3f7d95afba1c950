"""A service that is sent anything, or kept waiting: it says what is wrong and serves the rest."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.faults import Faults
from support.serving import FRAME, connected, serving
from tatvpr_edge.runtime import Localizer, messages
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.server import _MAX_REFUSED, MAX_CLIENTS, Server
from tatvpr_edge.runtime.service import Service
from tatvpr_edge.spec.errors import DeployError

RUBBISH = [
    b"",
    b"\0",
    b"GET / HTTP/1.0\r\n\r\n",
    struct.pack(">II", 2**32 - 1, 0),
    struct.pack(">II", 10, 2**32 - 1),
    struct.pack(">II", 2, 0) + b"[]",
    struct.pack(">II", 4, 0) + b"\xff\xfe{}",
    struct.pack(">II", 100, 0) + b"{",
    struct.pack(">II", 60000, 0) + b"[" * 60000,
    messages.encode({"op": "query", "planes": [[2**31, 2**31]]}),
    messages.encode({"op": "query", "planes": [[-1, 3]]}, b"xyz"),
    messages.encode({"op": "query", "planes": "x"}),
    messages.encode({"op": "query", "planes": [[1, True]]}, b"x"),
    messages.encode({"op": "query", "planes": [[1, 3]], "width": "1", "height": None}, b"xyz"),
    messages.encode({"op": "query", "planes": [[1, 3]], "format": {}, "width": 1}, b"xyz"),
    messages.encode({"op": "set", "k": [[]]}),
    messages.encode({"op": "set", "k": "auto", "budget": "battery:" + 3000 * "1"}),
    messages.encode({"op": "set", "map": "/no\nsuch\x1b[2Jmap"}),
    messages.encode({"op": ["query"]}),
]


#: Rubbish that is no whole message: the other end waits for more, or cannot know where one begins.
NO_MESSAGE = {b"", b"\0", struct.pack(">II", 100, 0) + b"{"}


def send(path: Path, data: bytes) -> dict[str, Any] | None:
    """What the service answers to raw bytes, after which nothing comes; None: it hung up."""
    with socket.socket(socket.AF_UNIX) as connection:
        with messages.short_path(str(path)) as short:
            connection.connect(short)
        connection.settimeout(60)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reply = messages.decode_answer(messages.receiver(connection))
        return None if reply is None else reply[0]


@pytest.mark.parametrize("sent", RUBBISH)
def test_rubbish_is_answered_with_what_is_wrong(
    served: tuple[Path, Localizer], sent: bytes
) -> None:
    path, here = served
    reply = send(path, sent)
    if sent in NO_MESSAGE:
        assert reply is None
    else:
        assert reply is not None and reply["ok"] is False and reply["error"]
        assert "fault of tatvpr-edge" not in reply["error"] and reply["error"].isprintable()
    with Client(path) as client:
        assert client.describe(FRAME).tobytes() == here.describe(FRAME).tobytes()


@pytest.mark.parametrize("op", ["query", "add", "confirm", "describe", "set", "info", "restart"])
def test_a_key_that_no_request_knows_is_named(served: tuple[Path, Localizer], op: str) -> None:
    """A misspelt radius was no radius."""
    shape = {"format": "RGB888", "width": 4, "height": 4, "planes": [[4, 12]]}
    frame = shape if op in ("query", "add", "describe") else {}
    reply = send(
        served[0], messages.encode({"op": op, **frame, "raduis": 3}, bytes(48 * bool(frame)))
    )
    assert reply is not None and reply["kind"] == "UsageError"
    assert reply["error"].startswith(f"{op} knows no 'raduis': it takes ")


@pytest.mark.slow
def test_no_amount_of_rubbish_takes_a_seat(served: tuple[Path, Localizer], faults: Faults) -> None:
    path, here = served
    for count in (MAX_CLIENTS, 100 * MAX_CLIENTS):
        for index in range(count):
            sent = RUBBISH[index % len(RUBBISH)]
            reply = send(path, sent)
            refused = reply is None if sent in NO_MESSAGE else reply is not None and not reply["ok"]
            faults.count("service", refused, sent[:80])
        expected, began = here.describe(FRAME).tobytes(), time.monotonic()
        with Client(path, timeout_s=30) as client:
            assert client.describe(FRAME).tobytes() == expected
        took_s = time.monotonic() - began
        print(f"\nafter {count} bad messages the next good one was answered in {took_s:.3f} s")


def test_one_client_too_many_is_told_and_a_free_seat_is_used(
    tiny_host: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with serving(path, "--artifact", str(tiny_host)), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(path)) for _ in range(MAX_CLIENTS)]
        for client in clients:
            client.info()  # each has its seat for certain
        for _ in range(_MAX_REFUSED + 1):  # who is told so makes room for the next
            with Client(path) as extra, pytest.raises(DeployError, match="64 programs are"):
                extra.describe(FRAME)
        clients[0].close()
        deadline = time.monotonic() + 60
        while True:
            try:
                with Client(path) as late:
                    assert len(late.describe(FRAME))
                break
            except DeployError:  # the seat is freed by a thread of the service
                assert time.monotonic() < deadline
        assert clients[1].info()["model"], "a client that was idle meanwhile keeps its seat"


def test_what_is_announced_and_never_sent_takes_no_memory(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with serving(path, "--artifact", str(tiny_host)) as process, Client(path) as client:
        before = client.self_test()["resident_bytes"]
        liars = [connected(path) for _ in range(MAX_CLIENTS - 2)]
        for liar in liars:
            liar.sendall(struct.pack(">II", 2, messages.MAX_BLOB) + b"{}" + b"x" * 1000)
        time.sleep(0.5)
        assert client.self_test()["resident_bytes"] - before < 64 << 20
        for liar in liars:
            liar.close()
        assert process.poll() is None


class Dripping(socket.socket):
    """A connection whose other end has one more byte at any time."""

    sent = 0

    def recv(self, count: int, flags: int = 0) -> bytes:
        self.sent += 1
        return b"x"


def test_what_comes_byte_by_byte_for_ever_is_no_message() -> None:
    with Dripping(socket.AF_UNIX) as connection:
        receive = messages.receiver(connection, 0.05)
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            receive(1 << 22)
        assert connection.sent > 10
    ours, theirs = socket.socketpair()
    with ours, theirs:  # what lies there whole is taken, however late one looks
        whole = messages.encode({"op": "info"}, b"x" * 1000)
        theirs.sendall(whole)
        assert messages.decode(messages.receiver(ours, 0.0)) == ({"op": "info"}, b"x" * 1000)


def test_half_a_message_gives_its_seat_back(
    tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tatvpr_edge.runtime.server.MESSAGE_S", 0.5)
    path = tmp_path / "s.sock"
    with Localizer(tiny_host) as localizer, Server(str(path), Service(localizer)) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            halves = [connected(path) for _ in range(MAX_CLIENTS)]
            for half in halves:
                half.sendall(messages.encode({"op": "info"})[:-1])
            for half in halves:
                half.settimeout(60)
                assert half.recv(1) == b""  # it lost its connection, and nothing else did
                half.close()
            with Client(path) as client:
                assert len(client.describe(FRAME))
        finally:
            server.stop()
            thread.join(30)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    left = [data]

    def receive(count: int) -> bytes:
        piece, left[0] = left[0][:count], left[0][count:]
        return piece

    with contextlib.suppress(ValueError):
        reply = messages.decode(receive)
        assert reply is None or isinstance(reply[0], dict)


def test_messages_come_back_as_they_were() -> None:
    stream = [messages.encode({"op": "query", "shape": [1, 2, 3]}, b"abcdef")]

    def receive(count: int) -> bytes:
        piece, stream[0] = stream[0][:count], stream[0][count:]
        return piece

    assert messages.decode(receive) == ({"op": "query", "shape": [1, 2, 3]}, b"abcdef")
    assert messages.decode(receive) is None
