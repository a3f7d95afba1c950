"""A service that begins, ends and dies: the only one, its owner's, and systemd hears of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from support.serving import FRAME, connected, serving
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.runtime.server import MAX_CLIENTS, _make_room
from tatvpr_edge.spec.errors import DeployError, MapError, UsageError


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
        assert second.returncode == 1 and len(second.stderr.splitlines()) == 1
        assert "another service answers" in second.stderr
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
    assert third.returncode == 1 and len(third.stderr.splitlines()) == 1
    assert "no socket" in third.stderr
    assert path.read_text() == "a file of the user"


def test_of_two_that_begin_in_the_same_instant_one_stays(tiny_host: Path, tmp_path: Path) -> None:
    """The second takes the name before the first one listens: nobody would ask that any more."""
    path = tmp_path / "s.sock"
    words = ["--artifact", str(tiny_host)]
    with serving(path, *words) as first:
        path.rename(tmp_path / "taken")  # as what does not listen yet is taken for dead
        with serving(path, *words) as second:
            _, said = first.communicate(timeout=30)
            assert first.returncode == 1
            assert (
                said.decode() == f"error: another service took {path}: one of the two is enough\n"
            )
            with Client(path) as client:
                assert len(client.describe(FRAME))
            assert second.poll() is None


def test_a_service_of_another_user_is_not_believed() -> None:
    """Where everybody may make files, anybody can answer in the place of a service that is away."""
    if os.geteuid():
        pytest.skip("only root can be two users")
    with tempfile.TemporaryDirectory(prefix="tatvpr-") as name:
        path = Path(name) / "s.sock"
        os.chmod(name, 0o1777)
        ready, stop = multiprocessing.Event(), multiprocessing.Event()

        def listen() -> None:
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as planted:
                planted.bind(str(path))
                os.chmod(path, 0o777)
                planted.listen()
                ready.set()
                stop.wait(60)

        stranger = multiprocessing.get_context("fork").Process(target=listen)
        stranger.start()
        try:
            assert ready.wait(60)
            with pytest.raises(DeployError, match=r"another user's program \(id 65534\) answers"):
                Client(path)
            os.chown(name, 65534, 65534)  # a service in its own user's folder
            Client(path).close()
        finally:
            stop.set()
            stranger.join()


def test_a_socket_of_another_user_is_left_alone() -> None:
    """It may be served: that this user may not connect to it does not make it a dead one."""
    with (
        tempfile.TemporaryDirectory(prefix="tatvpr-") as name,
        socket.socket(socket.AF_UNIX) as its,
    ):
        path = Path(name) / "s.sock"
        its.bind(str(path))
        its.listen()
        path.chmod(0)  # and whoever is not root may not connect
        if not os.geteuid():
            os.chown(name, 65534, 65534)

        def serve(said: Connection) -> None:
            if not os.geteuid():
                os.setgid(65534)
                os.setuid(65534)
            try:
                _make_room(str(path))
            except UsageError as error:
                said.send(str(error))
            said.close()

        mine, theirs = multiprocessing.Pipe(duplex=False)
        other = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,))
        other.start()
        theirs.close()
        try:
            assert "another user's" in mine.recv() and path.is_socket()
        finally:
            other.join()


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


def seated(client: Client) -> bool:
    """Whether it is answered: the service's question to itself may hold the last seat just now."""
    with contextlib.suppress(DeployError):
        client.info()
        return True
    return False


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
            client = all.enter_context(Client(path))
            assert any(seated(client) for _ in range(1000))
        while systemd.recv(100) != b"READY=1":
            pass
        for _ in range(4):
            assert systemd.recv(100) == b"WATCHDOG=1"
        path.unlink()  # whoever answers nobody any more is not, whatever else of it runs
        while b"No such file" not in (line := process.stderr.readline()):
            assert b"self-test: " in line  # late answers of a busy machine, while it was there
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
