"""How the host starts a program on a board: OpenSSH's client, or this machine itself.

A transport runs one shell command and gives its standard streams; nothing else of it is used. The
user's own ``ssh`` does the rest: keys, agent, jump hosts, known hosts, multiplexing.
:class:`LocalTransport` deploys to this machine (``local:``) and serves tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tatvpr_edge.spec.errors import DeployError, ToolError
from tatvpr_edge.spec.text import printable

from .naming import LOCAL

_TAIL_BYTES = 16384
#: What a command has for its end once nobody speaks with it any more.
_END_S = 5.0
#: Room between us and ssh, so that neither waits for the other after every 64 kB.
_PIPE_BYTES = 1 << 20
# A user and a host, an alias or an address; nothing that ssh could take for an option, and nothing
# that a shell or ssh's own percent expansion could take for more than a name: a percent sign stands
# in an address of IPv6 alone, before the name of an interface (RFC 4007).
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,252}")
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?")
_ZONE = re.compile(r"[A-Za-z0-9_.\-]{1,15}")
#: How ssh itself says that it ended, not the command on the board (ssh(1)).
_SSH_FAILED = 255
#: What ssh says of a key that changed: the file, and the name there, which a Host's HostName, Port
#: and HostKeyAlias make another one than the user wrote.
_OFFENDING = re.compile(r"^Offending \S+ key in (.+):[0-9]+\s*$", re.MULTILINE)
_CHANGED = re.compile(r"^Host key for (\S+) has changed", re.MULTILINE)
#: What ssh says where no login is let in; a file of the board that may not be read has no methods.
_DENIED = re.compile(r"^.*Permission denied \(.*$", re.MULTILINE)
_TOO_MANY = "Too many authentication failures"
#: Ways not to get there, of which a proxy or a jump host may have said more after it.
_NO_WAY = re.compile(
    r"^.*(?:Could not resolve|Connection refused|timed out|No route to host).*$", re.MULTILINE
)


@dataclass(frozen=True)
class Target:
    """A board's address as ssh takes it: no brackets, the port by itself."""

    user: str | None
    host: str
    port: int | None

    @property
    def words(self) -> str:
        """``USER@HOST`` or ``HOST``."""
        return self.host if self.user is None else f"{self.user}@{self.host}"


def parse_target(text: str) -> Target:
    """``[USER@]HOST``, where HOST is a name, a Host of the user's ssh configuration, or an address:
    ``192.168.1.2``, ``fd00::2``, ``fe80::1%eth0``, ``[fe80::1%eth0]``, ``[::1]:2222``.

    Raises:
        DeployError: it is none of them; a link-local address without its interface.
    """
    refused = DeployError(
        f"{printable(text)[:80]!r} is no board: write USER@HOST (and --port N), or a Host of "
        "~/.ssh/config"
    )
    before, at, host = text.rpartition("@")
    user = before if at else None
    if user is not None and _USER.fullmatch(user) is None:
        raise refused
    bracketed, port = _BRACKETED.fullmatch(host), None
    if bracketed is not None:
        host = bracketed[1]
        port = None if bracketed[2] is None else int(bracketed[2])
    if port is not None and not 1 <= port <= 65535:
        raise refused
    if ":" in host:
        _check_ipv6(host, refused)
    elif bracketed is not None or _HOST.fullmatch(host) is None:
        raise refused
    return Target(user, host, port)


def _check_ipv6(host: str, refused: DeployError) -> None:
    address, percent, zone = host.partition("%")
    try:
        known = ipaddress.IPv6Address(address)
    except ValueError:
        raise refused from None
    if percent and _ZONE.fullmatch(zone) is None:
        raise refused
    if known.is_link_local and not percent:
        raise DeployError(
            f"{host} is a link-local address and needs its interface: {host}%eth0 (see `ip link`)"
        )


class Transport(Protocol):
    """A way to a board."""

    @property
    def name(self) -> str:
        """The board's name for people, as the user wrote it."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """What our commands need besides its name to go this way: ``--port 2222``, word by word."""
        ...

    def placed(self, root: str | None) -> str | None:
        """An install root as the board is told it: a relative one lies in the login's home."""
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
        with contextlib.suppress(OSError):  # a user's pipes together have a limit
            fcntl.fcntl(self.send, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._said = bytearray()
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def write(self, data: bytes | memoryview, within_s: float | None = None) -> None:
        """Send all of ``data``.

        Raises:
            TimeoutError: the other end did not take it ``within_s``.
            OSError: the other end is gone.
        """
        view, to = memoryview(data), self.send.fileno()
        end = None if within_s is None else time.monotonic() + within_s
        os.set_blocking(to, False)
        while view:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([], [to], [], left)[1]:
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                count = os.write(to, view)
                self.sent_bytes += count
                view = view[count:]

    def said(self) -> str:
        """The last lines on its standard error; call it when the command has ended."""
        self._reader.join(timeout=2)
        return bytes(self._said).decode("utf-8", "replace").strip()

    def explained(self, status: int) -> str | None:
        """What ended the connection, where the local program for it failed with ``status``; None
        where the command on the board did, whatever that said."""
        return self.transport.explain(self.said()) if status == _SSH_FAILED else None

    def close(self, seconds: float | None = None, leave: bool = False) -> int:
        """End the connection and return the command's exit status. A command that goes on for so
        long is killed; ``leave``: it is left to end by itself, and 0 is returned at once."""
        with contextlib.suppress(OSError):
            self.send.close()
        if leave:
            threading.Thread(target=self.process.wait, daemon=True).start()
            self.receive.close()
            return 0
        try:
            status = self.process.wait(_END_S if seconds is None else seconds)
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
        named = parse_target(self.target)
        if named.port is not None and self.port not in (None, named.port):
            raise DeployError(f"{self.target} and --port {self.port} name two ports: give one")
        # ssh waits for a pipe; "none" is its word for no file at all, as the other is everybody's.
        none = self.config in (None, "none", os.devnull)
        if not none and not os.path.isfile(self.config or ""):
            raise DeployError(f"--ssh-config {self.config} is no file: name one that ssh reads")

    @property
    def _at(self) -> Target:
        """Where ``target`` is, with the port that was given apart from it."""
        named = parse_target(self.target)
        return named if named.port is not None else replace(named, port=self.port)

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.target

    @property
    def options(self) -> tuple[str, ...]:
        """``--port`` and ``--ssh-config``, as far as they were given."""
        port = () if self.port is None else ("--port", str(self.port))
        return port if self.config is None else (*port, "--ssh-config", self.config)

    def placed(self, root: str | None) -> str | None:
        """As the user wrote it."""
        return root

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
            # A Host of the user's configuration may be meant for logging in by hand.
            "RemoteCommand=none",
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
        if self._at.port is not None:
            words += ["-p", str(self._at.port)]
        words += ["--", self._at.words, command]
        return Link(_popen(words, kind=_Apart if self.batch else subprocess.Popen[bytes]), self)

    def explain(self, said: str) -> str | None:
        """What ssh's own words mean, with the command that helps."""
        to = self._at
        at = " ".join(
            [
                *(["-F", shlex.quote(self.config)] if self.config else []),
                *(["-p", str(to.port)] if to.port else []),
                shlex.quote(to.words),
            ]
        )
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "host key has changed" in said:
            return (
                f"{self.name}: the host key CHANGED since the last connection; somebody may be in "
                "between. If you know why it changed, forget the old key with "
                f"`{_forgetting(said, to)}` and accept the new one with `ssh {at} true`"
            )
        if "Host key verification failed" in said or "host key is known" in said:
            return (
                f"{self.name}: the host key is unknown: compare and accept it once with "
                f"`ssh {at} true`"
            )
        if _TOO_MANY in said:
            return (
                f"{self.name}: login refused ({_TOO_MANY}): ssh offered other keys first: name "
                "this board's in ~/.ssh/config, with IdentityFile and `IdentitiesOnly yes`"
            )
        denied = _DENIED.search(said)
        if denied:
            asks = ", and give it to ssh-agent (`ssh-add`) where it has a passphrase"
            return (
                f"{self.name}: login refused ({_last(denied[0])}): check the user and your keys "
                f"with `ssh {at} true`{asks if self.batch else ''}"
            )
        no_way = _NO_WAY.search(said)
        if no_way:
            return f"{self.name}: cannot connect: {_last(no_way[0])}: try `ssh {at} true`"
        return f"{self.name}: the connection failed ({_last(said)}): try `ssh {at} true`"


@dataclass(frozen=True)
class LocalTransport:
    """This machine, through ``/bin/sh``; ``environment`` is added to its own."""

    name: str = LOCAL
    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()

    def placed(self, root: str | None) -> str | None:
        """As any other path of this machine: a relative one lies in the working folder."""
        return root if not root or root.startswith("~") else os.path.abspath(root)

    def start(self, command: str) -> Link:
        """Run ``command`` by ``/bin/sh``."""
        environment = {**os.environ, **dict(self.environment)}
        return Link(_popen(["/bin/sh", "-c", command], environment, kind=_Apart), self)

    def explain(self, said: str) -> str | None:
        """Nothing special can be said of this machine's own shell."""
        return None


def transport_to(
    target: str, port: int | None, config: str | None, *, batch: bool
) -> LocalTransport | SshTransport:
    """The way to ``target``; ``local:`` is this machine. Arguments as of :class:`SshTransport`."""
    return LocalTransport() if target == LOCAL else SshTransport(target, port, config, batch=batch)


class _Apart(subprocess.Popen[bytes]):
    """A program in a session of its own: what it started ends with it, as sshd sees to on a board,
    and the terminal's Ctrl-C is ours alone, who may have to wait for it.

    Not so for an ssh that may ask its terminal for passwords.
    """

    def __init__(self, words: list[str], **options: Any) -> None:
        super().__init__(words, start_new_session=True, **options)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _popen(
    words: list[str],
    environment: dict[str, str] | None = None,
    kind: type[subprocess.Popen[bytes]] = subprocess.Popen,
) -> subprocess.Popen[bytes]:
    return kind(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment,
    )


def _forgetting(said: str, to: Target) -> str:
    """The command that takes a key that changed out of the file in which ssh found it."""
    file, name = _OFFENDING.search(said), _CHANGED.search(said)
    known = f"[{to.host}]:{to.port}" if to.port not in (None, 22) else to.host
    words = ["ssh-keygen", *(["-f", file[1]] if file else []), "-R", name[1] if name else known]
    return printable(shlex.join(words))


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return printable(lines[-1].strip()[:200]) if lines else "nothing said"
