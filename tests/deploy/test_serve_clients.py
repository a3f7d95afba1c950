"""A client outlives its service, waits as long as it was told, and mixes up no answers."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from support.serving import FRAME, serving
from tatvpr_edge.runtime import FakeLocalizer, messages
from tatvpr_edge.runtime.client import Client
from tatvpr_edge.spec.errors import DeployError


def silent(listener: socket.socket, answers: int) -> threading.Thread:
    """A service that takes the first connection and says nothing, then answers as many others."""

    def serve() -> None:
        first, _ = listener.accept()
        with first:
            for number in range(answers):
                other, _ = listener.accept()
                with other:
                    messages.decode(messages.receiver(other))
                    other.sendall(messages.encode({"ok": True, "number": number}))
            with contextlib.suppress(OSError):
                while first.recv(1 << 16):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("side", [64, 2000], ids=["a question", "half a question"])
def test_ctrl_c_amid_a_question_costs_the_next_one_nothing(tmp_path: Path, side: int) -> None:
    """In a notebook the next call took the answer to the one before, or waited for the rest of
    the message, half of which was sent."""

    class Interrupted(Exception):
        """What the handler of a signal raises, as Python's own does."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        service = silent(listener, answers=1)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with Client(path, timeout_s=20) as client:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(Interrupted):
                    client.describe(np.zeros((side, side, 3), np.uint8))
                assert client.info() == {"number": 0}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        service.join(60)


def test_closing_a_client_ends_a_call_in_another_thread(tmp_path: Path) -> None:
    """It waited for its answer, or failed with an AttributeError."""
    path = tmp_path / "s.sock"
    said: list[Exception] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        service = silent(listener, answers=0)
        client = Client(path, timeout_s=600)

        def ask() -> None:
            try:
                client.info()
            except Exception as error:
                said.append(error)

        waiting = threading.Thread(target=ask, daemon=True)
        waiting.start()
        time.sleep(0.2)
        client.close()
        waiting.join(30)
        assert [type(error) for error in said] == [DeployError] and "was closed" in str(said[0])
        service.join(60)


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


def test_a_request_has_its_own_time_however_late_the_last_answer_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slow.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def slow() -> None:
        connection, _ = listener.accept()
        with connection:
            receive = messages.receiver(connection)
            connection.sendall(messages.encode({"ok": True}))
            messages.decode(receive)
            time.sleep(0.5)
            messages.decode(receive)
            answer = {"ok": True, "match": FakeLocalizer.match().plain()}
            connection.sendall(messages.encode(answer))

    server = threading.Thread(target=slow, daemon=True)
    server.start()
    with listener, Client(path) as client:
        with monkeypatch.context() as late:  # of the 30 s, a hundredth of one was left
            clock = iter([0.0, 29.99, 29.99, 29.99])
            late.setattr(messages, "time", SimpleNamespace(monotonic=lambda: next(clock)))
            client.info()
        assert client.query(np.zeros((1200, 1200, 3), np.uint8)).place == 0
    server.join(60)


def test_a_forked_child_gets_its_own_answers(tiny_host: Path, tmp_path: Path) -> None:
    # In a program of its own, because forking pytest would fork its threads' locks too.
    program = """
import os, signal, sys, numpy as np
from tatvpr_edge.runtime import Client
frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
with Client(sys.argv[1]) as client:
    wanted = [client.describe(frame).tobytes() for frame in frames]
    child = os.fork()
    signal.alarm(60)
    mine = 0 if child else 1
    right = sum(client.describe(frames[mine]).tobytes() == wanted[mine] for _ in range(50))
    if child == 0:
        os._exit(0 if right == 50 else 1)
print(right, os.waitpid(child, 0)[1])
"""
    path = tmp_path / "s.sock"
    with serving(path, "--artifact", str(tiny_host)):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120
        )
    assert done.stdout == "50 0\n", done.stderr


def answering(path: Path, answer: bytes) -> threading.Thread:
    """A service that answers one question, whatever it is, with these bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            messages.decode(messages.receiver(connection))
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


PLACE = {"place": 3, "score": 0.5, "tag": "door", "pose": [1.0, 2.0, None, None, None, None, None]}


def test_a_client_takes_of_a_newer_service_what_it_knows(tmp_path: Path) -> None:
    """A deploy starts the service again under programs that go on: they ended in a TypeError."""
    match = {**PLACE, "accepted": True, "k": 0.2, "tokens": 1.0, "latency_ms": 2.0, "later": [1]}
    match["candidates"] = [{**PLACE, "later": {}}]
    said = {"ok": True, "match": match, "mark": "m", "later": 1}
    service = answering(tmp_path / "s.sock", messages.encode(said))
    with Client(tmp_path / "s.sock") as client:
        found = client.query(FRAME)
    service.join(5)
    assert (found.place, found.tag, found.mark) == (3, "door", "m")
    assert found.pose is not None and found.pose[:2] == (1.0, 2.0) and np.isnan(found.pose[2])
    assert found.candidates[0].pose is not None and found.candidates[0].place == 3


@pytest.mark.parametrize(
    "answer",
    [b'{"ok":true,"match":{"place":3,"pose":[NaN]}}', b'{"ok":true,"match":{"place":3}}'],
    ids=["NaN, as services of before said", "less than is asked for"],
)
def test_what_a_service_of_another_version_answers_names_the_remedy(
    tmp_path: Path, answer: bytes
) -> None:
    """It was asked twice more, and said "failed: NaN is not a number", or ended in a TypeError."""
    data = messages.HEADER.pack(len(answer), 0) + answer
    service = answering(tmp_path / "s.sock", data)
    said = pytest.raises(DeployError, match=r"another version of tatvpr-edge .*: start it")
    with Client(tmp_path / "s.sock", restart_s=0) as client, said:
        client.query(FRAME)
    service.join(5)


def test_a_descriptor_of_another_version_is_none(tmp_path: Path) -> None:
    """What came was taken for numbers, whatever it was, or ended in NumPy's ValueError."""
    for name, data in (("half", b"\0" * 32), ("odd", b"\0" * 63)):
        said = messages.encode({"ok": True, "size": 16}, data)
        service = answering(tmp_path / name, said)
        refused = pytest.raises(DeployError, match=r"another version .*a descriptor of 16 numbers")
        with Client(tmp_path / name, restart_s=0) as client, refused:
            client.describe(FRAME)
        service.join(5)
