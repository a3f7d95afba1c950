"""How the host starts a program on a board: OpenSSH's client, or this machine itself.

A transport runs one shell command and gives its standard streams; nothing else of it is used. The
user's own ``ssh`` does the rest: keys, agent, jump hosts, known hosts, multiplexing.
:class:`LocalTransport` deploys to this machine (``local:``) and serves tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import threading
from dataclasses import dataclass
from typing import Protocol

from tatvpr_edge.spec.errors import DeployError, ToolError

_TAIL_BYTES = 16384
# A user and a host, an alias or an address; nothing that ssh could take for an option, and nothing
# that a shell or ssh's own percent expansion could take for more than a name.
_TARGET = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.+\-]{0,63}@)?(?:[A-Za-z0-9_][A-Za-z0-9_.\-]{0,252}|[0-9A-Fa-f:.]+)"
)


class Transport(Protocol):
    """A way to a board."""

    @property
    def name(self) -> str:
        """The board's name for people, as the user wrote it."""
        ...

    def start(self, command: str) -> Link:
        """Run ``command`` by the board's login shell.

        Raises:
            ToolError: the local program for it is missing.
        """
        ...

    def explain(self, said: str) -> str | None:
        """What the local program's own words mean, with the remedy; None where nothing special."""
        ...


class Link:
    """A running command on a board: raw streams, and why it ended."""

    def __init__(self, process: subprocess.Popen[bytes], transport: Transport) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self.transport = transport
        self.send = process.stdin
        self.receive = process.stdout
        self.sent_bytes = 0
        self._said = bytearray()
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def write(self, data: bytes | memoryview) -> None:
        """Send all of ``data``.

        Raises:
            OSError: the other end is gone.
        """
        view = memoryview(data)
        while view:
            count = os.write(self.send.fileno(), view)
            self.sent_bytes += count
            view = view[count:]

    def said(self) -> str:
        """The last lines on its standard error; call it when the command has ended."""
        self._reader.join(timeout=2)
        return bytes(self._said).decode("utf-8", "replace").strip()

    def close(self, seconds: float = 5) -> int:
        """End the connection and return the command's exit status."""
        with contextlib.suppress(OSError):
            self.send.close()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(timeout=2)
        self.receive.close()
        return status

    def _collect(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            while data := os.read(stream.fileno(), 4096):
                self._said += data
                del self._said[:-_TAIL_BYTES]


@dataclass(frozen=True)
class SshTransport:
    """OpenSSH to ``target`` (``USER@HOST``, ``HOST``, or a Host of the user's configuration).

    ``config`` is a configuration file for ``ssh -F``; ``batch`` forbids every question (passwords,
    passphrases), as when many boards are served at once.
    """

    target: str
    port: int | None = None
    config: str | None = None
    batch: bool = False
    connect_s: int = 15

    def __post_init__(self) -> None:
        if _TARGET.fullmatch(self.target) is None:
            raise DeployError(
                f"{self.target[:80]!r} is no board: write USER@HOST, or a Host of ~/.ssh/config"
            )

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.target

    def start(self, command: str) -> Link:
        """Run ``command`` by the board's login shell; a board whose host key is unknown or changed
        is refused by ssh, never asked about."""
        program = shutil.which("ssh")
        if program is None:
            raise ToolError("ssh is missing: apt-get install openssh-client")
        words = [program, "-T", "-x", "-a", "-e", "none"]
        for option in (
            "StrictHostKeyChecking=yes",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
            "RequestTTY=no",
            f"ConnectTimeout={self.connect_s}",
            "ServerAliveInterval=10",
            "ServerAliveCountMax=3",
            "LogLevel=ERROR",
            f"BatchMode={'yes' if self.batch else 'no'}",
        ):
            words += ["-o", option]
        if self.config is not None:
            words += ["-F", self.config]
        if self.port is not None:
            words += ["-p", str(self.port)]
        return Link(_popen([*words, "--", self.target, command]), self)

    def explain(self, said: str) -> str | None:
        """What ssh's own words mean, with the command that helps; None where they mean nothing
        special."""
        at = " ".join(
            [
                *(["-F", shlex.quote(self.config)] if self.config else []),
                *(["-p", str(self.port)] if self.port else []),
                shlex.quote(self.target),
            ]
        )
        host = self.target.rpartition("@")[2]
        known = f"[{host}]:{self.port}" if self.port not in (None, 22) else host
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "host key has changed" in said:
            return (
                f"{self.name}: the host key CHANGED since the last connection; somebody may be in "
                "between. If you know why it changed, forget the old key with "
                f"`ssh-keygen -R {shlex.quote(known)}` and accept the new one with `ssh {at} true`"
            )
        if "Host key verification failed" in said or "host key is known" in said:
            return (
                f"{self.name}: the host key is unknown: compare and accept it once with "
                f"`ssh {at} true`"
            )
        if "Permission denied" in said:
            return (
                f"{self.name}: login refused ({_last(said)}): check the user and your keys with "
                f"`ssh {at} true`"
            )
        for sign in ("Could not resolve", "Connection refused", "timed out", "No route to host"):
            if sign in said:
                return f"{self.name}: cannot connect: {_last(said)}"
        return None


@dataclass(frozen=True)
class LocalTransport:
    """This machine, through ``/bin/sh``; ``environment`` is added to its own."""

    name: str = "local:"
    environment: tuple[tuple[str, str], ...] = ()

    def start(self, command: str) -> Link:
        """Run ``command`` by ``/bin/sh``."""
        environment = {**os.environ, **dict(self.environment)}
        return Link(_popen(["/bin/sh", "-c", command], environment), self)

    def explain(self, said: str) -> str | None:
        """Nothing special can be said of this machine's own shell."""
        return None


def _popen(words: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
    )


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "nothing said"
