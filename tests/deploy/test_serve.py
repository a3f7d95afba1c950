"""The service: one warm Localizer, many programs asking it over a Unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.deploy import service
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.store import Store
from tatvpr_edge.runtime import Localizer, messages
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.spec.errors import DeployError, FrameError, MapError, UsageError
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
    messages.encode({"op": "query", "shape": [2**31, 2**31, 3]}),
    messages.encode({"op": "query", "shape": [-1, 3]}, b"xyz"),
    messages.encode({"op": "query", "shape": "x"}),
    messages.encode({"op": ["query"]}),
]


@pytest.mark.parametrize("sent", RUBBISH)
def test_rubbish_does_not_end_the_service(served: tuple[Path, Localizer], sent: bytes) -> None:
    path, here = served
    with socket.socket(socket.AF_UNIX) as connection:
        with messages.short_path(str(path)) as short:
            connection.connect(short)
        connection.settimeout(20)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        reply = messages.decode(messages.receiver(connection))
        assert reply is None or reply[0]["ok"] is False
    with Client(path) as client:
        assert client.describe(FRAME).tobytes() == here.describe(FRAME).tobytes()


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
    with serving(path, "--artifact", str(tiny_host)) as process, Client(path) as client:
        process.kill()
        process.wait()
        with pytest.raises(DeployError, match=r"ended|failed"):
            client.info()


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
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
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
    assert service.after_switch(store, ["python3"], False) is None and not log.exists()
    if fails:
        with pytest.raises(DeployError, match=r"systemctl restart .* failed on the board: Job"):
            service.after_switch(store, ["python3"], True)
    else:
        assert service.after_switch(store, ["python3"], True) == "active"
        assert "daemon-reload" in log.read_text() and "enable" in log.read_text()
        # Another root's service is not touched.
        log.unlink()
        other = Store(str(tmp_path / "other"), Disk())
        assert service.after_switch(other, ["python3"], False) is None and not log.exists()
    assert str(tmp_path) in unit.read_text()
