"""The service: one warm Localizer, many programs asking it over a Unix socket."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.board import hash_of, live_content
from support.faults import Faults
from support.tools import lacking
from tatvpr_edge.deploy import service
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.runtime import CameraFrame, Localizer, messages
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.mapjournal import rewrite
from tatvpr_edge.runtime.server import MAX_CLIENTS, Server
from tatvpr_edge.runtime.service import Service
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import DeployError, FrameError, MapError, UsageError
from tatvpr_edge.spec.maptypes import Calibration, calibrated
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

FRAME = np.random.default_rng(5).integers(0, 256, (40, 56, 3)).astype(np.uint8)


@contextlib.contextmanager
def serving(path: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """``serve`` in a process of its own, ready, ended by its pid."""
    with subprocess.Popen(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--socket", str(path), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=path.parent,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line.startswith(b"serving "), process.stderr.read()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def served(
    tiny_host: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Localizer]]:
    """A socket that is served, and the same Localizer in this process."""
    # A socket address holds 108 bytes; install roots can be longer.
    folder = tmp_path_factory.mktemp("long") / ("deep" * 20) / ("er" * 40)
    folder.mkdir(parents=True)
    with Localizer(tiny_host) as plain:
        descriptors = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(5)])
        model = plain.artifact.manifest.model
        places = make_map(folder / "places.placemap", model.hash, descriptors)
    words = ["--artifact", str(tiny_host), "--map", str(places)]
    with serving(folder / "s.sock", *words), Localizer(tiny_host, places) as localizer:
        yield folder / "s.sock", localizer


def make_map(path: Path, model_hash: str, descriptors: Any) -> Path:
    """A map of descriptors made at k = 0.2."""
    info = MapInfo(model_hash, "int8", descriptors.shape[1], (Band(0.2),), "local")
    tags = [f"place {i}" for i in range(len(descriptors))]
    poses = np.full((len(descriptors), 7), np.nan)
    poses[:, 0] = np.arange(len(descriptors))
    write_map(path, info, [make_places(info, [descriptors], poses, tags)])
    return path


def test_answers_are_the_localizers_own(served: tuple[Path, Localizer]) -> None:
    path, here = served
    with Client(path) as client:
        for frame, bgr in ((FRAME, False), (FRAME, True), (FRAME[:, :, 0], False)):
            assert client.describe(frame, bgr).tobytes() == here.describe(frame, bgr).tobytes()
            there, expected = client.query(frame, bgr, top=3), here.query(frame, bgr, top=3)
            assert [c.tag for c in there.candidates] == [c.tag for c in expected.candidates]
            assert there.score == expected.score and there.accepted is expected.accepted
        assert there.candidates[0].pose is not None and len(there.candidates[0].pose) == 7
        # A frame that is a view of another one: not packed in memory.
        view = FRAME[::-1, ::2]
        assert client.describe(view).tobytes() == here.describe(view).tobytes()
        info = client.info()
        assert info["model_hash"] == here.artifact.manifest.model.hash and info["map"] is True
        test = client.self_test()
        assert test["golden"][0]["identical"] and test["grown_bytes"] < 200 << 20


def test_a_calibrated_map_s_verdict_is_served(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=0.2) as plain:
        rows = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(12)])
        places = make_map(tmp_path / "m.placemap", plain.artifact.manifest.model.hash, rows)
    judged = Calibration("logistic", 0.0, (0.5, 1.0, 2.0), elsewhere_places=1, precision=0.9)
    rewrite(places, lambda old: (calibrated(old.base.info, [judged]), [old.base.places()]))
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(places)]
    with serving(path, *words), Client(path) as client, Localizer(tiny_host, places) as here:
        for frame in (FRAME, np.zeros_like(FRAME)):
            there, expected = client.query(frame), here.query(frame)
            for name in ("accepted", "confidence", "margin", "reason"):
                assert getattr(there, name) == getattr(expected, name)
        assert there.accepted is False and there.reason is not None
        assert client.query(FRAME).accepted is True


def test_each_connection_is_a_path_of_its_own(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=0.2) as plain:
        rows = np.stack([plain.describe(np.roll(FRAME, 7 * i, 0)) for i in range(12)])
        places = make_map(tmp_path / "m.placemap", plain.artifact.manifest.model.hash, rows)
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(places), "--k", "0.2"]
    with (
        serving(path, *words),
        Client(path, sequence=3) as one,
        Client(path, sequence=3) as two,
        Client(path) as single,
        Localizer(tiny_host, places, k=0.2, sequence=3) as here,
    ):
        for index in range(4):
            frame = np.roll(FRAME, 7 * index, 0)
            moved: Any = 0.5 if index % 2 else (0.5, 0.0, 0.1)
            there, expected = one.query(frame, odometry=moved), here.query(frame, odometry=moved)
            assert (there.place, there.frames) == (expected.place, min(index + 1, 3))
        assert two.query(FRAME).frames == 1 and single.query(FRAME).frames == 1
        one.restart()
        assert one.query(FRAME).frames == 1
        with pytest.raises(UsageError, match="odometry belongs to a sequence"):
            single.query(FRAME, odometry=1.0)
        with pytest.raises(UsageError, match="metres that the camera moved"):
            one.query(FRAME, odometry=float("nan"))
        with pytest.raises(UsageError, match="sequence is"):
            single._ask({"op": "query", "sequence": -1})


def test_k_can_be_set_and_bad_requests_are_errors_not_the_end(
    served: tuple[Path, Localizer],
) -> None:
    path, here = served
    with Client(path) as client:
        assert client.set(k=1.0, tokens=0.5) == {"k": 1.0, "tokens": 0.5}
        assert client.query(FRAME).k == 1.0
        client.set(k=0.2, tokens=1.0)
        for bad in ({"k": 0}, {"k": 1.5}, {"k": "fast"}, {"k": None}, {"tokens": float("nan")}):
            with pytest.raises(UsageError):
                client.set(**bad)
        for frame in (FRAME.astype(float), FRAME[:0], np.zeros((4, 4, 5), np.uint8), "frame"):
            with pytest.raises(UsageError):
                client.query(frame)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="top"):
            client.query(FRAME, top=0)
        with pytest.raises(UsageError, match="op is one of"):
            client._ask({"op": "rm -rf"})
        with pytest.raises(FrameError):
            client.describe([1, 2, 3])  # type: ignore[arg-type]
        assert client.describe(FRAME).tobytes() == here.describe(FRAME).tobytes()


def test_a_budget_is_served_and_set_for_all(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--k", "auto", "--budget", "5000ms"]
    with serving(path, *words), Client(path) as client:
        now = client.set()
        assert (now["k"], now["budget"], now["preset"]) == ("auto", "5000 ms", None)
        now = client.set(budget="20ms", preset="battery-saver")
        assert (now["budget"], now["preset"]) == ("20 ms", "battery-saver")
        assert "budget 20 ms" in now["why"]
        client.describe(FRAME)
        with pytest.raises(UsageError, match="not understood"):
            client.set(budget="much")
        with pytest.raises(UsageError, match='budget belongs to k="auto"'):
            client.set(k=0.2, budget="5W")
        assert client.set(k=0.2) == {"k": 0.2, "tokens": 1.0}
        with pytest.raises(UsageError, match='budget belongs to k="auto"'):
            client.set(budget="5W")
        assert client.set(k="auto", budget="30ms")["budget"] == "30 ms"


@pytest.mark.parametrize("words", [["--budget", "5W"], ["--k", "auto"], ["--k", "fast"]])
def test_a_budget_that_would_be_ignored_or_is_missing_is_not_served(
    tiny_host: Path, tmp_path: Path, words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--artifact", str(tiny_host),
         "--socket", str(tmp_path / "s.sock"), *words],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_many_programs_ask_at_once(served: tuple[Path, Localizer]) -> None:
    path, here = served
    expected = here.describe(FRAME).tobytes()
    wrong: list[object] = []

    def ask() -> None:
        with Client(path) as client:
            for _ in range(20):
                if client.describe(FRAME).tobytes() != expected:
                    wrong.append("another answer")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


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
        assert "fault of tatvpr-edge" not in reply["error"]
    with Client(path) as client:
        assert client.describe(FRAME).tobytes() == here.describe(FRAME).tobytes()


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


def connected(path: Path) -> socket.socket:
    """A client that has connected and says nothing."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with messages.short_path(str(path)) as short:
            connection.connect(short)
    except OSError:
        connection.close()
        raise
    return connection


def test_one_client_too_many_is_told_and_a_free_seat_is_used(
    tiny_host: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with serving(path, "--artifact", str(tiny_host)), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(path)) for _ in range(MAX_CLIENTS)]
        for client in clients:
            client.info()  # each has its seat for certain
        with Client(path) as extra, pytest.raises(DeployError, match="64 programs are connected"):
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


def test_an_answer_is_as_long_as_what_was_asked_for(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host) as plain:
        one = plain.describe(FRAME)
        place_map = make_map(
            tmp_path / "m.placemap", plain.artifact.manifest.model.hash, np.tile(one, (3000, 1))
        )
    path = tmp_path / "s.sock"
    with (
        serving(path, "--artifact", str(tiny_host), "--map", str(place_map)),
        Client(path) as client,
    ):
        match = client.query(FRAME, top=3000)
        assert len(match.candidates) == 3000 and match.candidates[2999].place == 2999


def test_camera_frames_go_through_as_a_localizer_takes_them(
    served: tuple[Path, Localizer],
) -> None:
    path, here = served
    y = np.ascontiguousarray(FRAME[:, :, 0])
    nv12 = CameraFrame((y, np.ascontiguousarray(y[:20])), "NV12", 56, 40)
    padded = CameraFrame((np.hstack([y, y]),), "GRAY8", 56, 40)
    with Client(path) as client:
        video = dataclasses.replace(nv12, yuv_range="limited", yuv_matrix="bt709")
        assert here.describe(video).tobytes() != here.describe(nv12).tobytes()
        for frame in (nv12, padded, video):
            assert client.describe(frame).tobytes() == here.describe(frame).tobytes()
            assert client.query(frame).place == here.query(frame).place
        with pytest.raises(FrameError, match="unknown"):
            client.describe(CameraFrame((y,), "JPEG", 56, 40))


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


def test_the_socket_is_its_owners_and_one_service_listens_there(
    tiny_host: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host)]
    with serving(path, *words) as process:
        assert path.stat().st_mode & 0o777 == 0o600
        second = subprocess.run(
            [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--socket", str(path), *words],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 1 and "another service answers" in second.stderr
        with Client(path) as client, pytest.raises(MapError, match="no map"):
            client.query(FRAME)
        process.kill()
        process.wait()
    assert path.exists(), "a killed process cannot tidy up"
    with serving(path, *words), Client(path) as client:
        assert len(client.describe(FRAME))
    assert not path.exists()
    with pytest.raises(DeployError, match="no service at"):
        Client(path)
    path.write_text("a file of the user")
    third = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--socket", str(path), *words],
        capture_output=True,
        text=True,
    )
    assert third.returncode == 1 and "no socket" in third.stderr
    assert path.read_text() == "a file of the user"


def test_a_client_that_is_left_alone_says_so(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with (
        serving(path, "--artifact", str(tiny_host)) as process,
        Client(path, restart_s=0.2) as client,
    ):
        process.kill()
        process.wait()
        with pytest.raises(DeployError, match="no service at"):
            client.info()


def test_a_client_outlives_a_restart_of_the_service(tiny_host: Path, tmp_path: Path) -> None:
    path, words = tmp_path / "s.sock", ["--artifact", str(tiny_host)]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serving(path, *words))
        client = stack.enter_context(Client(path, restart_s=60))
        wanted = client.describe(FRAME).tobytes()
        again: list[bytes] = []
        for end in ("terminate", "kill"):
            getattr(first, end)()
            first.wait()
            # Asked while nothing listens: the answer comes once it does again.
            asking = threading.Thread(target=lambda: again.append(client.describe(FRAME).tobytes()))
            asking.start()
            first = stack.enter_context(serving(path, *words))
            asking.join(60)
        assert again == [wanted, wanted]


class Dying:
    """A service that takes and drops ``drops`` connections, as one that is killed does, and then
    answers; or that drops all of them until it is told to be ``away_s``, and then answers."""

    def __init__(self, path: Path, drops: int = 10_000, away_s: float = 0.0) -> None:
        self.path, self.drops, self.away_s = path, drops, away_s
        self.leave, self.left = threading.Event(), threading.Event()
        self._listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.listening.settimeout(0.02)

    def _accept(self) -> socket.socket | None:
        try:
            return self.listening.accept()[0]
        except TimeoutError:
            return None

    def _serve(self) -> None:
        while self.drops and not self.leave.is_set():
            connection = self._accept()
            if connection is not None:
                self.drops -= 1
                connection.recv(1)
                connection.close()
        if self.leave.is_set():
            self.listening.close()
            self.left.set()
            time.sleep(self.away_s)
            self._listen()
        while (connection := self._accept()) is None:
            pass
        with connection:
            while messages.decode(messages.receiver(connection)) is not None:
                connection.sendall(messages.encode({"ok": True, "release": "r"}))
        self.listening.close()


def test_a_client_outlives_a_service_that_takes_it_and_dies(tmp_path: Path) -> None:
    service = Dying(tmp_path / "s.sock", drops=2)
    with Client(service.path, restart_s=60) as client:
        assert client.info() == {"release": "r"}
    service.thread.join(60)


def test_a_call_after_one_that_failed_still_waits_for_the_restart(tmp_path: Path) -> None:
    service = Dying(tmp_path / "s.sock", away_s=0.3)
    with Client(service.path, restart_s=60) as client:
        with pytest.raises(DeployError, match="failed"):
            client.info()
        service.leave.set()
        assert service.left.wait(60)
        assert client.info() == {"release": "r"}
    service.thread.join(60)


def test_a_client_learns_of_a_new_release(tiny_host: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("one", "two"):
        shutil.copytree(tiny_host, root / "releases" / name / "artifact")
    (root / "current").symlink_to("releases/one")
    path, words = tmp_path / "s.sock", ["--root", str(root)]
    heard = threading.Event()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(serving(path, *words))
        client = stack.enter_context(Client(path, restart_s=60))
        client.describe(FRAME)
        client.on_stale(lambda it: heard.set(), every_s=0.05)
        assert client.stale is False and client.info()["stale"] is False
        (root / "current").unlink()
        (root / "current").symlink_to("releases/two")
        # A service that nobody restarts says so itself; one that was restarted is another.
        assert client.info()["stale"] is True and client.stale is True
        first.terminate()
        first.wait()
        stack.enter_context(serving(path, *words))
        assert client.info()["stale"] is False and client.stale is True
        assert heard.wait(60)
        with Client(path) as again:
            assert again.describe(FRAME).size and again.stale is False


def test_a_client_changes_the_map_for_all(tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host, k=1.0) as plain:
        frames = [np.roll(FRAME, 7 * i, 0) for i in range(4)]
        rows = np.stack([plain.describe(frame) for frame in frames])
        model = plain.artifact.manifest.model.hash
    first = make_map(tmp_path / "first.placemap", model, rows[:2])
    second = make_map(tmp_path / "second.placemap", model, rows[::-1])
    bad = make_map(tmp_path / "bad.placemap", "ab" * 32, rows)
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host), "--map", str(first), "--k", "1"]
    with serving(path, *words), Client(path) as client, Client(path) as other:
        assert client.query(frames[0]).tag == "place 0"
        # Its path as the program writes it, whatever folder the service runs in.
        set_now = client.set(map=os.path.relpath(second))
        assert set_now["map_path"] == str(second) == other.info()["map_path"]
        assert other.query(frames[0]).tag == "place 3"
        for wrong in (bad, tmp_path / "missing.placemap"):
            with pytest.raises(MapError, match=wrong.name):
                client.set(map=wrong)
        assert other.query(frames[0]).tag == "place 3"
        client.set(map=None)
        with pytest.raises(MapError, match="no map"):
            other.query(frames[0])


def test_a_late_answer_is_never_taken_for_the_next_one(tmp_path: Path) -> None:
    """A service that answers too late, then at once: the second caller gets its own answer."""
    path = tmp_path / "slow.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    hold = threading.Event()

    def slow() -> None:
        first, _ = listener.accept()
        with first:  # it stays open: only the client may leave it
            messages.decode(messages.receiver(first))
            hold.wait(60)
            with contextlib.suppress(OSError):
                first.sendall(messages.encode({"ok": True, "who": "late"}))
            second, _ = listener.accept()
            with second:
                messages.decode(messages.receiver(second))
                second.sendall(messages.encode({"ok": True, "who": "second"}))

    server = threading.Thread(target=slow, daemon=True)
    server.start()
    with listener, Client(path, timeout_s=0.3) as client:
        with pytest.raises(DeployError, match=r"did not answer within 0\.3 s"):
            client.info()
        hold.set()
        client.timeout_s = 60
        assert client.info() == {"who": "second"}
    server.join(60)


def test_it_ends_without_a_traceback_while_clients_connect(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connected(path).close()

    knocking = [threading.Thread(target=knock) for _ in range(4)]
    with serving(path, "--artifact", str(tiny_host)) as process:
        for thread in knocking:
            thread.start()
        time.sleep(0.2)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        stop.set()
        assert process.returncode == 0 and errors == b""
    for thread in knocking:
        thread.join()


def test_systemd_hears_of_readiness_and_of_life(tiny_host: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        with serving(
            tmp_path / "s.sock",
            "--artifact",
            str(tiny_host),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="200000",
        ):
            heard = [systemd.recv(100) for _ in range(4)]
        assert b"READY=1" in heard and heard.count(b"WATCHDOG=1") >= 2


def test_the_watchdog_asks_through_the_socket(tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, contextlib.ExitStack() as all:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        said = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        process = all.enter_context(serving(path, *words, **said))
        assert process.stderr is not None
        for _ in range(MAX_CLIENTS):  # whoever is full is alive
            all.enter_context(Client(path)).info()
        while systemd.recv(100) != b"READY=1":
            pass
        for _ in range(4):
            assert systemd.recv(100) == b"WATCHDOG=1"
        path.unlink()  # whoever answers nobody any more is not, whatever else of it runs
        assert b"self-test: " in process.stderr.readline()
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                systemd.recv(100)
        for _ in range(3):
            assert b"self-test: " in process.stderr.readline()
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


def test_it_ends_with_its_parent(tiny_host: Path, tmp_path: Path) -> None:
    words = ["--artifact", str(tiny_host), "--until-stdin-closes"]
    with serving(tmp_path / "s.sock", *words) as process:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        assert process.wait(30) == 0
    assert not (tmp_path / "s.sock").exists()


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge.runtime", "serve", "--root", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "nothing is deployed below" in done.stderr


# ---- the unit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["/srv/tatvpr", '/srv/a b/100%/$HOME/"q"/back\\slash'])
def test_the_unit_is_one_that_systemd_accepts(tmp_path: Path, root: str) -> None:
    program = shutil.which("systemd-analyze")
    text = service.unit_text(root, [sys.executable])
    assert "WatchdogSec=30" in text and "Restart=always" in text
    if program is None:
        lacking("systemd-analyze", "apt-get install systemd")
    assert program is not None
    place = tmp_path / root.strip("/")
    (place / "current").mkdir(parents=True)
    unit = tmp_path / "tatvpr-edge.service"
    unit.write_text(service.unit_text(str(place), [sys.executable]))
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True)
    about_us = [line for line in done.stderr.splitlines() if "tatvpr-edge.service" in line]
    assert done.returncode == 0 and not about_us, done.stderr


def test_a_root_that_no_unit_can_name_is_refused() -> None:
    with pytest.raises(DeployError, match="no --service"):
        service.unit_text("/srv/a\nb", ["python3"])
    with pytest.raises(DeployError, match="no --service"):
        service.unit_text("/srv/a", ["python3"], ["--budget", "5W\nExecStartPre=x"])


def test_the_unit_serves_with_what_deploy_was_told() -> None:
    text = service.unit_text("/srv/a", ["python3"], ["--k", "auto", "--budget", "5W"])
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert start.endswith('"--root" "/srv/a" "--k" "auto" "--budget" "5W"'), start


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "5W"], "belongs to --service"),
        (["--service", "--budget", "5W"], "belong to --k auto"),
        (["--service", "--k", "auto"], "needs a --budget"),
        (["--service", "--k", "auto", "--budget", "much"], "not understood"),
        (["--service", "--k", "fast"], "a fraction such as 0.2, or auto"),
        (["--service", "--k", "2"], "above 0 and at most 1"),
    ],
)
def test_deploy_refuses_what_the_unit_could_not_serve(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    from tatvpr_edge.cli import main

    assert main(["deploy", "nowhere", "local:", *words]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("fails", ["", "restart"])
def test_the_unit_is_installed_restarted_and_its_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        f'case "$*" in *{fails or "no-such-word"}*) echo Job failed >&2; exit 1;; esac\n'
        "echo active\n"
    )
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    unit = tmp_path / "units" / service.UNIT
    monkeypatch.setattr(service, "unit_path", lambda: str(unit))
    store = Store(str(tmp_path), Disk())
    assert service.after_switch(store, ["python3"], None) is None and not log.exists()
    if fails:
        with pytest.raises(DeployError, match=r"systemctl restart .* failed on the board: Job"):
            service.after_switch(store, ["python3"], True)
    else:
        assert service.after_switch(store, ["python3"], True) == "active"
        assert "daemon-reload" in log.read_text() and "enable" in log.read_text()
        # Another root's service is not touched.
        log.unlink()
        other = Store(str(tmp_path / "other"), Disk())
        assert service.after_switch(other, ["python3"], None) is None and not log.exists()
        assert str(tmp_path) in unit.read_text()
        assert service.after_switch(store, ["python3"], False) is None
        assert "disable --now" in log.read_text()
    # A unit that failed to install, or is no longer wanted, meets no later deploy.
    assert not unit.exists()
    assert service.after_switch(store, ["python3"], None) is None


@pytest.mark.parametrize("runs", [True, False])
def test_systemd_is_looked_for_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if not runs:
        (programs / "systemctl").write_text(
            "#!/bin/sh\necho System has not been booted with systemd >&2; exit 1\n"
        )
        (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    service.look(None)
    service.look(False)
    with pytest.raises(DeployError, match=r"systemd.*: deploy without --service"):
        service.look(True)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that knows every unit but ``unknown``, starts all but ``broken``; its log."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    (programs / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        'case "$*" in\n'
        "*show*unknown*) echo not-found;;\n"
        "*show*) echo loaded;;\n"
        "*restart*broken*) echo Job for broken.service failed >&2; exit 1;;\n"
        "esac\n"
    )
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return log


def deploy_command(
    root: Path, wheel: Path, artifact: Artifact, *words: str, command: str = "deploy"
) -> int:
    """The command line's exit status, for this machine as the board."""
    from tatvpr_edge.cli import main

    named = [str(artifact.root)] if command == "deploy" else []
    given = ["--wheel", str(wheel), *words] if command == "deploy" else list(words)
    where = ["--root", str(root), "--python", shlex.quote(sys.executable)]
    return main([command, *named, "local:", *where, "--watch-seconds", "0.1", *given])


def test_deploy_restarts_the_robot_s_own_units(
    ram_path: Path,
    wheel: Path,
    pair: tuple[Artifact, Artifact],
    systemd: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, (old, new) = ram_path / "root", pair
    units = ["--restart", "robot", "--restart", "cam@1.service"]
    assert deploy_command(root, wheel, old, *units) == 0
    assert "restarted robot.service, cam@1.service" in capsys.readouterr().out
    asked = [line.split()[-1] for line in systemd.read_text().splitlines() if "restart" in line]
    assert asked == ["robot.service", "cam@1.service"]
    assert deploy_command(root, wheel, new) == 0
    systemd.write_text("")
    assert deploy_command(root, wheel, old, "--restart", "robot", command="rollback") == 0
    assert live_content(root) == hash_of(old) and "restart robot.service" in systemd.read_text()


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("broken", r"systemctl .*restart broken.service failed .*: Job.*: went back, .* is live"),
        ("unknown", r"unit unknown.service cannot be restarted: it is not-found"),
        ("--now", r"'--now' is no name of a systemd unit"),
        ("a b", r"'a b' is no name of a systemd unit"),
    ],
)
def test_a_unit_that_does_not_start_leaves_the_release_before(
    ram_path: Path,
    wheel: Path,
    pair: tuple[Artifact, Artifact],
    systemd: Path,
    capsys: pytest.CaptureFixture[str],
    unit: str,
    said: str,
) -> None:
    root, (old, new) = ram_path / "root", pair
    assert deploy_command(root, wheel, old) == 0
    assert deploy_command(root, wheel, new, f"--restart={unit}", "--restart=robot") == 1
    assert re.search(said, capsys.readouterr().err)
    assert live_content(root) == hash_of(old)
    if unit == "broken":  # the program that was asked for runs on the old release again
        assert systemd.read_text().splitlines()[-1].endswith("restart robot.service")
    else:
        assert "restart" not in (systemd.read_text() if systemd.exists() else "")
