"""The board's agent with faults in its file system, started thousands of times without a login.

Run as a program it is a server on a Unix socket (argument 1): each connection is served by a fork
with the agent's own code and a :class:`Disk` that fails, dies or records as the connection's first
line (JSON) says. :func:`faulty_agents` starts it, and its transport is used like any other.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tatvpr_edge.deploy import agent
from tatvpr_edge.deploy.disk import Disk
from tatvpr_edge.deploy.transport import Link

#: What changes the file system, in the order of :class:`Disk`.
CHANGES = (
    *("mkdir", "create", "reopen", "write", "sync", "close", "sync_file", "sync_folder"),
    *("rename", "symlink", "unlink", "rmdir"),
)
_NEEDS_SPACE = ("mkdir", "create", "write", "symlink")


class FaultyDisk(Disk):
    """Counts changes. ``kill``: dies before change number ``at``. ``fail``: that change raises
    ``error`` (an errno). ``full``: from that change on whatever needs space raises ENOSPC.
    ``record``: writes all changes, with their data, to the file ``record`` as they come."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self.fault = fault
        self.count = 0
        self.journal = open(fault["record"], "ab") if "record" in fault else None  # noqa: SIM115

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.count += 1
        kind, at = self.fault.get("kind"), self.fault.get("at", 0)
        if kind == "kill" and self.count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "fail" and self.count == at and name != "close":
            raise OSError(self.fault["error"], os.strerror(self.fault["error"]))
        if kind == "full" and self.count >= at and name in _NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == "count":
            Path(self.fault["file"]).write_text(str(self.count))

    def after(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if self.journal is not None:
            plain = tuple(bytes(a) if isinstance(a, memoryview) else a for a in arguments)
            pickle.dump((name, plain, result), self.journal)
            self.journal.flush()


def _wrapped(name: str) -> Any:
    real = getattr(Disk, name)

    def change(self: FaultyDisk, *arguments: Any) -> Any:
        self.before(name, arguments)
        result = real(self, *arguments)
        self.after(name, arguments, result)
        return result

    return change


for _name in CHANGES:
    setattr(FaultyDisk, _name, _wrapped(_name))


def _serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)  # who sees it can connect
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            for descriptor in (0, 1):
                os.dup2(connection.fileno(), descriptor)
            connection.close()
            # The zygote has the agent's code already: what the host sends of it is skipped.
            stream = open(0, "rb", 0, closefd=False)  # noqa: SIM115
            fault = json.loads(stream.readline())
            nonce = re.search(rb"\.main\(\\?'([0-9a-f]{32})", stream.readline())
            assert nonce is not None
            left = int(stream.read(10))
            while left:
                left -= len(stream.read(left))
            disk = FaultyDisk(fault)
            with contextlib.suppress(BrokenPipeError):
                os._exit(agent.main(nonce.group(1).decode(), disk))
            os._exit(1)
        connection.close()


@dataclass
class _Process:
    """As much of a process as a Link wants, over a socket."""

    connection: socket.socket

    def __post_init__(self) -> None:
        # A pipe of its own, because a Link makes what it writes to non-blocking, and a socket's two
        # directions share that.
        taken, given = os.pipe()
        self.stdin = open(given, "wb", 0)  # noqa: SIM115
        self.pump = threading.Thread(target=self._forward, args=(taken,), daemon=True)
        self.pump.start()
        self.stdout = self.connection.makefile("rb", buffering=0)
        self.stderr = open(os.devnull, "rb", 0)  # noqa: SIM115

    def _forward(self, taken: int) -> None:
        with open(taken, "rb", 0) as source, contextlib.suppress(OSError):
            while data := source.read(1 << 16):
                self.connection.sendall(data)
            self.connection.shutdown(socket.SHUT_WR)

    def wait(self, seconds: float | None = None) -> int:
        """Wait until the agent's end is closed."""
        self.pump.join(seconds)
        with contextlib.suppress(OSError):
            self.connection.settimeout(seconds)
            while self.connection.recv(65536):
                pass
        self.connection.close()
        return 0

    def kill(self) -> None:
        self.connection.close()


@dataclass
class FaultyTransport:
    """A transport to one agent with one fault."""

    path: str
    fault: dict[str, Any] = field(default_factory=dict)
    name: str = "board"
    options: tuple[str, ...] = ()

    def placed(self, root: str | None) -> str | None:
        """As it is."""
        return root

    def start(self, command: str) -> Link:
        """Connect; the command is what every fork runs anyway."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.sendall(json.dumps(self.fault).encode() + b"\n")
        return Link(_Process(connection), self)  # type: ignore[arg-type]

    def explain(self, said: str) -> str | None:
        """A socket says nothing."""
        return None


@contextlib.contextmanager
def faulty_agents(folder: Path) -> Iterator[str]:
    """Start the server; yields its socket's path for :class:`FaultyTransport`."""
    path = str(folder / "agents.sock")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "support.faulty_agent", path], env=environment
    )
    try:
        while not os.path.exists(path):
            assert process.poll() is None
            time.sleep(0.02)
        yield path
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
