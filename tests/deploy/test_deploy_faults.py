"""Whatever fails, and whenever: the board serves the old release or the new one, whole, and the
next deploy succeeds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.board import Sshd, hash_of, live_content, make_artifact, quick_options
from support.faulty_agent import FaultyTransport, faulty_agents
from support.mounts import mounted
from tatvpr_edge.deploy.push import deploy, rollback, status
from tatvpr_edge.deploy.session import agent_modules
from tatvpr_edge.deploy.transport import Link, SshTransport
from tatvpr_edge.spec.errors import DeployError, TatvprError

STEPS = ("hash", "signature", "golden", "install", "switch", "health", "confirm")


# ---- the board dies, or its disk fails, at any change ------------------------------------------


def count_changes(path: Path, work: Callable[[FaultyTransport], object], agents: str) -> int:
    """How many changes of the file system ``work`` makes."""
    counted = path / "count"
    work(FaultyTransport(agents, {"kind": "count", "file": str(counted)}))
    return int(counted.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "stride"),
    [
        ({"kind": "kill"}, 1),
        ({"kind": "full"}, 2),
        ({"kind": "fail", "error": errno.EIO}, 3),
        ({"kind": "fail", "error": errno.EROFS}, 7),
    ],
    ids=["killed", "disk full", "input/output error", "read-only"],
)
def test_fault_at_every_change_of_the_file_system(
    ram_path: Path, pair: Any, fresh: Any, faults: Any, fault: dict[str, Any], stride: int
) -> None:
    old, new = pair
    seen = set()
    with faulty_agents(ram_path) as agents:
        root, options = fresh()
        total = count_changes(ram_path, lambda t: deploy(t, new, None, options), agents)
        for at in range(1, total + 1, stride):
            root, options = fresh()
            with contextlib.suppress(TatvprError):
                deploy(FaultyTransport(agents, {**fault, "at": at}), new, None, options)
            seen.add(faults.check(root, {hash_of(old), hash_of(new)}, (fault, at)))
            deploy(FaultyTransport(agents), new, None, options)
            assert live_content(root) == hash_of(new)
            shutil.rmtree(root)
    assert seen == {hash_of(old), hash_of(new)}


@pytest.mark.slow
def test_killed_at_every_change_of_a_rollback_and_of_going_back(
    ram_path: Path, pair: Any, fresh: Any, faults: Any
) -> None:
    old, new = pair
    bad = make_artifact(ram_path / "bad", b"bad", "service-wrong")
    with faulty_agents(ram_path) as agents:
        start, options = fresh()
        deploy(FaultyTransport(agents), new, None, options)
        for what in ("rollback", "back"):
            at = 0
            while True:
                at += 1
                root = ram_path / f"{what}{at}"
                shutil.copytree(start, root, symlinks=True)
                options = replace(options, root=str(root))
                killed = FaultyTransport(agents, {"kind": "kill", "at": at})
                ended = ""
                try:
                    if what == "rollback":
                        rollback(killed, None, options)
                    else:
                        deploy(killed, bad, None, options)
                except DeployError as error:
                    ended = str(error)
                allowed = {hash_of(old), hash_of(new)}
                if what == "back":
                    allowed = {hash_of(new), hash_of(bad)}
                if not ended or "went back" in ended:
                    break  # the fault lay behind the last change
                faults.check(root, allowed, (what, at))
                deploy(FaultyTransport(agents), old, None, options)
                assert live_content(root) == hash_of(old)
                if what == "back" and at == 1:
                    at = 40  # what comes before is the same as in any deploy
            assert at > 10


# ---- the connection is cut ---------------------------------------------------------------------


class Proxy:
    """Forwards a TCP port and cuts each connection after so many bytes in one direction."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_after: dict[str, int] = {}
        self.passed = {"up": 0, "down": 0}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            self.passed = {"up": 0, "down": 0}
            pumps = [
                threading.Thread(target=self._pump, args=arguments, daemon=True)
                for arguments in (("up", client, server), ("down", server, client))
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    def _pump(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                left = self.cut_after.get(name, 1 << 60) - self.passed[name]
                sink.sendall(data[: max(0, left)])
                self.passed[name] += len(data)
                if len(data) >= left:
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_connection_cut_at_random_bytes(
    ram_path: Path, sshd: Sshd, pair: Any, fresh: Any, faults: Any
) -> None:
    old, new = pair
    proxy = Proxy(sshd.port)
    try:
        transport = sshd.transport(proxy.port)
        root, options = fresh()
        deploy(transport, new, None, options)
        whole = dict(proxy.passed)
        chance = random.Random(7)
        for number in range(10):
            root, options = fresh()
            direction = "up" if number % 3 else "down"
            proxy.cut_after = {direction: chance.randrange(whole[direction])}
            with contextlib.suppress(TatvprError):
                deploy(transport, new, None, options)
            settle_agents(root)
            faults.check(root, {hash_of(old), hash_of(new)}, proxy.cut_after)
            proxy.cut_after = {}
            deploy(transport, new, None, options)
            assert live_content(root) == hash_of(new)
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()


def settle_agents(root: Path, seconds: float = 20) -> None:
    """Wait until no agent holds the root's lock: one that was cut off may still finish."""
    deadline = time.monotonic() + seconds
    with open(root / "lock", "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.02)


class KilledAt:
    """An SSH transport whose client is killed with -9 when an event comes: the host dies."""

    def __init__(self, inner: SshTransport, step: str) -> None:
        self.inner, self.step, self.name = inner, step, inner.name
        self.link: Link | None = None

    def start(self, command: str) -> Link:
        """As the inner one."""
        self.link = self.inner.start(command)
        return self.link

    def placed(self, root: str | None) -> str | None:
        """As the inner one."""
        return self.inner.placed(root)

    def explain(self, said: str) -> str | None:
        """As the inner one."""
        return self.inner.explain(said)

    def on_event(self, event: dict[str, Any]) -> None:
        """Kill at the step."""
        if self.step in (event.get("name"), event.get("event")):
            assert self.link is not None
            self.link.process.send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["file", *STEPS])
def test_host_dies_at_every_step(sshd: Sshd, pair: Any, fresh: Any, faults: Any, step: str) -> None:
    old, new = pair
    root, options = fresh()
    dying = KilledAt(sshd.transport(), step)
    with contextlib.suppress(TatvprError):
        deploy(dying, new, None, options, dying.on_event)
    settle_agents(root)
    live = faults.check(root, {hash_of(old), hash_of(new)}, step)
    if step in ("file", "hash"):
        assert live == hash_of(old)
    if step in ("health", "confirm"):  # the agent finishes by itself
        assert live == hash_of(new) and status(sshd.transport(), options)["unconfirmed"] is False
    deploy(sshd.transport(), new, None, options)
    assert live_content(root) == hash_of(new)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_agent_is_killed_at_every_step(
    sshd: Sshd, pair: Any, fresh: Any, faults: Any, step: str
) -> None:
    old, new = pair
    root, options = fresh()
    killing = (
        "\ndef _killed_at(self, name, real=Agent._step):\n"
        "    real(self, name)\n"
        f"    if name == {step!r}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Agent._step = _killed_at\n"
    )
    modules = agent_modules()
    modules[-1] = (modules[-1][0], modules[-1][1] + killing)
    with pytest.raises(DeployError, match="ended early"):
        deploy(sshd.transport(), new, None, replace(options, modules=modules))
    before_switch = STEPS.index(step) <= STEPS.index("switch")
    faults.check(root, {hash_of(old) if before_switch else hash_of(new)}, step)
    result = deploy(sshd.transport(), new, None, options)
    assert live_content(root) == hash_of(new)
    # The files were there already: none is sent twice.
    assert result.reused_bytes > 0.99 * sum(entry.bytes for entry in new.manifest.files)
    if step in ("health", "confirm"):
        assert any("is healthy and was confirmed" in text for text in result.warnings)


# ---- the disk ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_small_disk_fills(tmp_path: Path, sshd: Sshd, wheel: Path, faults: Any) -> None:
    old = make_artifact(tmp_path / "old", b"old")
    big = make_artifact(tmp_path / "big", b"big", files={"data.bin": os.urandom(2_600_000)})
    fits = make_artifact(tmp_path / "fits", b"fits", files={"data.bin": os.urandom(500_000)})
    with mounted(tmp_path / "disk", "size=4600k", "mode=755") as disk:
        options = quick_options(disk / "root", wheel)
        deploy(sshd.transport(), old, None, options)
        filler = disk / "filler"
        # Too full before anything is sent.
        filler.write_bytes(bytes(1_500_000))
        with pytest.raises(DeployError, match=r"MB are needed .* free some"):
            deploy(sshd.transport(), big, None, options)
        faults.check(disk / "root", {hash_of(old)}, "full at the start")
        # Fills while files arrive: another program writes.
        filler.unlink()

        def fill(event: dict[str, Any]) -> None:
            if event.get("event") == "file" and event["path"] == "artifact/data.bin":
                with contextlib.suppress(OSError), open(filler, "ab") as sink:
                    sink.write(bytes(4_000_000))

        with pytest.raises(DeployError, match=r"disk is full .* live release is untouched"):
            deploy(sshd.transport(), big, None, options, fill)
        faults.check(disk / "root", {hash_of(old)}, "full in the middle")
        assert not os.listdir(disk / "root" / "staging"), "half a release was left on a full disk"
        # Full to the last byte when the switch is to be made.
        filler.unlink()

        def fill_at_install(event: dict[str, Any]) -> None:
            if event.get("name") == "golden":
                with contextlib.suppress(OSError), open(filler, "ab", 0) as sink:
                    while True:
                        sink.write(bytes(4096))

        with contextlib.suppress(DeployError):
            deploy(sshd.transport(), fits, None, options, fill_at_install)
        faults.check(disk / "root", {hash_of(old), hash_of(fits)}, "full at the switch")
        filler.unlink()
        deploy(sshd.transport(), fits, None, options)
        assert live_content(disk / "root") == hash_of(fits)


def fill(path: Path) -> None:
    """Take the last byte of the disk."""
    with contextlib.suppress(OSError), open(path, "ab", 0) as sink:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    sink.write(bytes(size))


@pytest.mark.parametrize("spare", ["kept", "lost"])
def test_rollback_works_on_a_full_disk(
    tmp_path: Path, sshd: Sshd, wheel: Path, faults: Any, spare: str
) -> None:
    names = ("oldest", "old", "new")
    made = [
        make_artifact(tmp_path / name, name.encode(), files={"data.bin": os.urandom(300_000)})
        for name in names
    ]
    with mounted(tmp_path / "disk", "size=4m", "mode=755") as disk:
        options = quick_options(disk / "root", wheel)
        for artifact in made:
            deploy(sshd.transport(), artifact, None, options)
        (disk / "root" / "staging" / "left").mkdir()
        if spare == "lost":  # then the oldest release has to go
            (disk / "root" / "spare").unlink()
        fill(disk / "filler")
        assert os.statvfs(disk).f_bavail == 0
        if spare == "kept":  # a deploy that finds no room leaves it for a rollback
            more = make_artifact(tmp_path / "more", b"more", files={"x": os.urandom(900_000)})
            with pytest.raises(DeployError, match=r"too full|is full"):
                deploy(sshd.transport(), more, None, options)
            faults.check(disk / "root", {hash_of(made[2])}, "full before")
            fill(disk / "filler")
        done = rollback(sshd.transport(), None, options)
        faults.check(disk / "root", {hash_of(made[1])}, f"full, spare {spare}")
        assert done.changed and status(sshd.transport(), options)["unconfirmed"] is False
        # And forward again, still full.
        fill(disk / "filler")
        rollback(sshd.transport(), None, options)
        faults.check(disk / "root", {hash_of(made[2])}, f"full again, spare {spare}")
        (disk / "filler").unlink()
        deploy(sshd.transport(), made[1], None, options)
        assert (disk / "root" / "spare").stat().st_size > 0


@pytest.mark.slow
def test_board_mounted_read_only(
    tmp_path: Path, sshd: Sshd, wheel: Path, pair: Any, faults: Any
) -> None:
    old, new = pair
    with mounted(tmp_path / "disk", "size=8m", "mode=755") as disk:
        options = quick_options(disk / "root", wheel)
        deploy(sshd.transport(), old, None, options)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(DeployError, match=r"not writable|read-only"):
            deploy(sshd.transport(), new, None, options)
        faults.check(disk / "root", {hash_of(old)}, "read-only")
        assert status(sshd.transport(), options)["live"]
        with pytest.raises(DeployError, match=r"[Rr]ead-only"):
            deploy(sshd.transport(), new, None, quick_options(disk / "elsewhere", wheel))
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        deploy(sshd.transport(), new, None, options)
        assert live_content(disk / "root") == hash_of(new)
