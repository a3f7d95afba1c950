"""One conversation with a board's agent.

In: a transport. The agent's modules travel compressed over the connection itself; the command line
holds a fixed text and the name of the board's Python, nothing else. Out: answers, events as they
come, and one clear error when the conversation ends early.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import secrets
import shlex
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.spec import errors
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import printable

from . import packed
from .answers import check_answer, check_event
from .naming import lead
from .protocol import (
    CHUNK,
    DATA,
    JSON,
    MAGIC,
    MAX_NOISE,
    VERSION,
    ProtocolError,
    data_header,
    json_frame,
    read_frame,
)
from .transport import Link, Transport

#: In the order in which they import each other.
AGENT_MODULES = (
    *packed.TRUST_MODULES,
    "tatvpr_edge.spec.targets",
    "tatvpr_edge.runtime.messages",
    "tatvpr_edge.deploy.disk",
    "tatvpr_edge.deploy.protocol",
    "tatvpr_edge.deploy.store",
    "tatvpr_edge.deploy.admission",
    "tatvpr_edge.deploy.assembly",
    "tatvpr_edge.deploy.kept",
    "tatvpr_edge.deploy.switch",
    "tatvpr_edge.deploy.keyring",
    "tatvpr_edge.deploy.script",
    "tatvpr_edge.deploy.service",
    "tatvpr_edge.deploy.installed",
    "tatvpr_edge.deploy.channel",
    "tatvpr_edge.deploy.health",
    "tatvpr_edge.deploy.going_live",
    "tatvpr_edge.deploy.agent",
)
#: One line, no character that any login shell could read twice. It runs the line that follows.
_FIRST = 'exec(open(0,"rb",0,closefd=False).readline())'
# Old syntax, because it has to run far enough on an old Python to say so.
_SECOND = """
import json, os, sys, types, zlib
if sys.version_info < (3, 10):
    sys.exit("the board's Python is %d.%d: tatvpr-edge needs 3.10" % sys.version_info[:2])
sys.path[:] = [place for place in sys.path if place]
sys.dont_write_bytecode = True
def take(count):
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data
modules = json.loads(zlib.decompress(take(int(take(10)))))
LOAD
sys.exit(sys.modules["tatvpr_edge.deploy.agent"].main(NONCE))
"""
#: A board that says nothing at all for so long is gone; the agent says "alive" every second.
SILENCE_S = 120.0
#: How long logging in may take; the user may have to type a passphrase.
GREETING_S = 120.0
#: How long an answer may take, whatever the board says meanwhile: beside what was asked for, a
#: board hashes and syncs at least a megabyte in a second.
ANSWER_S = 600.0
BYTES_PER_S = 1e6
#: A board that takes a file's bytes slower than this is gone.
SLOWEST_BYTES_PER_S = 1e3
_MAX_ERROR = 4000
#: What keeps our lines from the board's Python, or it from starting.
READS = (
    "does a script of its login (~/.bashrc) read or wait? Let it end where there is no terminal: "
    "`[ -t 0 ] || return`"
)
#: What is kept of a login's noise: the greeting may begin in it, or it says why there is none.
_MOST_LINE = 300
#: What is copied rather than written in two pieces, each of which wakes ssh.
_SMALL_BYTES = 1 << 16
#: Steps and warnings of one conversation.
MAX_EVENTS = 10_000


def agent_modules() -> list[tuple[str, str]]:
    """(name, source) of what is sent to a board."""
    return packed.sources(AGENT_MODULES)


@functools.lru_cache(maxsize=2)
def _compressed(modules: tuple[tuple[str, str], ...]) -> bytes:
    """Modules as they travel: made once for all boards of a fleet."""
    return zlib.compress(packed.packed(modules).encode("ascii"), 9)


def python_words(python: str) -> list[str]:
    """The board's Python, a command, as its words.

    Raises:
        DeployError: it has none, a quote is not closed, or it is a path from nowhere: the agent's
            children, the release's script and the unit start it in other folders.
    """
    try:
        words = shlex.split(python)
    except ValueError as error:
        raise DeployError(f"--python {python[:80]!r}: {str(error).lower()}") from None
    if not words:
        raise DeployError("--python is empty: name the board's Python, such as python3")
    if "/" in words[0] and not words[0].startswith("/"):
        raise DeployError(f"--python {words[0][:80]}: give its whole path on the board")
    return words


class Session(Closing):
    """A conversation with the agent on ``transport``'s board.

    Args:
        python: the board's Python, as words of a command.
        on_event: called with the agent's events (``{"event": "step", "name": ...}`` and so on).
        modules: what is sent; tests add faults to it.
    """

    def __init__(
        self,
        transport: Transport,
        python: str = "python3",
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
        modules: list[tuple[str, str]] | None = None,
    ) -> None:
        self.transport = transport
        self.python = python_words(python)
        self._on_event = on_event
        #: Bounded, so that a board that talks without end waits instead of filling our memory.
        self._messages: queue.Queue[dict[str, Any] | str] = queue.Queue(1000)
        self._events = 0
        self._closed = False
        #: The agent switches, checks and confirms or goes back, whoever listens.
        self._finishing = False
        self._greeted = threading.Event()
        self._ahead = b""
        words = [*self.python, "-c", _FIRST]
        self._link: Link = transport.start(" ".join(shlex.quote(word) for word in words))
        self._nonce = secrets.token_hex(16)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send_agent(modules if modules is not None else agent_modules())

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, the agent itself included."""
        return self._link.sent_bytes

    def hello(self, root: str | None, of_live: bool = False) -> dict[str, Any]:
        """Facts about the board; the first request. ``of_live``: and about its live release's map,
        which the board hashes for it.

        Raises:
            DeployError: it cannot be reached, or its Python cannot run the agent.
        """
        place = self.transport.placed(root)
        message = {"op": "hello", "root": place, "python": self.python, "of_live": of_live}
        answer = self.ask(message, ANSWER_S if of_live else GREETING_S, GREETING_S)
        if answer.get("version") != VERSION:
            raise DeployError(f"{lead(self.transport.name)} the agent is of another version")
        return answer

    def ask(
        self, message: dict[str, Any], limit_s: float = ANSWER_S, silence_s: float = SILENCE_S
    ) -> dict[str, Any]:
        """Send a request and wait for its answer, passing events on.

        Args:
            limit_s: how long the answer may take, however alive the board says it is.
            silence_s: how long it may say nothing at all.

        Raises:
            TatvprError: the board refused it, by the class that the board says.
            DeployError: the connection ended, went silent or goes on for ever, or the answer is
                not one of ours.
        """
        self.tell(message)
        end = time.monotonic() + limit_s
        while True:
            left = end - time.monotonic()
            try:
                if left <= 0:  # also where something lies there at any time
                    raise queue.Empty
                reply = self._messages.get(timeout=min(silence_s, left))
            except queue.Empty:
                said = f"did not answer within {limit_s:.0f} s"
                if left > silence_s:
                    said = f"was silent for {silence_s:.0f} s"
                remedy = "run again" if self._greeted.is_set() else READS
                board = f"{lead(self.transport.name)} the board"
                raise DeployError(f"{board} {said}: {remedy}") from None
            if isinstance(reply, str):
                raise self._ended(reply)
            if "answer" in reply:
                self._finishing = False
                return check_answer(self.transport.name, str(message["op"]), reply["answer"])
            self._handle(reply)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message that has no answer."""
        self._write(json_frame(message))

    def send_file(self, chunks: Iterator[bytes]) -> None:
        """Send a file's bytes."""
        for chunk in chunks:
            header = data_header(len(chunk))
            if len(chunk) <= _SMALL_BYTES:
                self._write(header + chunk)
            else:
                self._write(header)
                self._write(chunk)
            for _ in range(self._messages.qsize()):  # an error ends the transfer at once
                reply = self._messages.get()
                if isinstance(reply, str):
                    raise self._ended(reply)
                self._handle(reply)

    def close(self) -> None:
        """End the conversation; the agent finishes what must be finished."""
        self._closed = True
        self._link.close(leave=self._finishing)
        if not self._finishing:
            self._reader.join(timeout=2)

    def _handle(self, reply: dict[str, Any]) -> None:
        name = self.transport.name
        if "error" in reply:
            self._finishing = False
            kind = errors.by_name(reply.get("kind"), DeployError)
            raise kind(f"{lead(name)} {printable(str(reply['error'])[:_MAX_ERROR])}")
        event = check_event(name, reply)
        self._finishing = self._finishing or event.get("name") == "switch"
        if event["event"] != "alive":
            self._events += 1
            if self._events > MAX_EVENTS:
                raise DeployError(f"{lead(name)} the board reports steps without end")
        self._on_event(event)

    def _send_agent(self, modules: list[tuple[str, str]]) -> None:
        data = _compressed(tuple(modules))
        program = _SECOND.replace("LOAD", packed.LOAD).replace("NONCE", repr(self._nonce))
        second = f"exec({program!r})\n"
        with contextlib.suppress(OSError):  # the first request will say why
            self._link.write(second.encode("ascii") + f"{len(data):010d}".encode("ascii"))
            self._link.write(data)

    def _write(self, data: bytes) -> None:
        try:
            self._link.write(data, SILENCE_S + len(data) / SLOWEST_BYTES_PER_S)
        except TimeoutError:
            raise DeployError(
                f"{lead(self.transport.name)} the board takes nothing that is sent: run again"
            ) from None
        except OSError:
            # The agent may have said why before it ended: that is the better error.
            while True:
                try:
                    reply = self._messages.get(timeout=5)
                except queue.Empty:
                    raise self._ended("the connection was cut") from None
                if isinstance(reply, str):
                    raise self._ended(reply) from None
                if "answer" not in reply:
                    self._handle(reply)

    def _ended(self, why: str) -> DeployError:
        name = self.transport.name
        status = self._link.close()
        said = self._link.said()
        # What has greeted was reached: what ends it later is said in ssh's own words.
        explained = None if self._greeted.is_set() else self._link.explained(status)
        if explained is not None:
            return DeployError(explained)
        last = printable(said.splitlines()[-1].strip()[:300]) if said else ""
        if status == 126 and not self._greeted.is_set():
            return DeployError(
                f"{lead(name)} the board may not start {self.python[0]} ({last}): its file system "
                "is mounted noexec (`findmnt -T` names it), or the file is not executable; name "
                "another with --python"
            )
        if not self._greeted.is_set():
            if status == 127 or "not found" in last:
                return DeployError(
                    f"{lead(name)} no {self.python[0]} on the board ({last}): install Python "
                    "3.10 or newer there, or name it with --python"
                )
            if last.startswith(("SyntaxError: ", "ValueError: ")):  # it ran what is no line of ours
                return DeployError(f"{lead(name)} the agent came in part ({last}): {READS}")
            return DeployError(f"{lead(name)} the board's agent did not start: {last or why}")
        return DeployError(
            f"{lead(name)} the connection ended early ({last or why}): run again, what was sent "
            "is kept"
        )

    # ---- the reading thread ------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._skip_noise()
            self._greeted.set()
            while True:
                kind, message = read_frame(self._exactly)
                if kind == JSON:
                    self._pass_on(message)
                elif kind == DATA:
                    raise ProtocolError("the board sent a file's bytes")
                else:
                    self._pass_on("the board ended the connection")
                    return
        except (ProtocolError, OSError, ValueError) as error:
            self._pass_on(str(error))

    def _pass_on(self, message: dict[str, Any] | str) -> None:
        while not self._closed:
            with contextlib.suppress(queue.Full):
                self._messages.put(message, timeout=0.2)
                return

    def _skip_noise(self) -> None:
        """Read past whatever a login shell prints, up to the agent's greeting."""
        wanted = MAGIC + self._nonce.encode("ascii") + b"\n"
        seen, total = b"", 0
        while wanted not in seen:
            piece = os.read(self._link.receive.fileno(), 65536)
            if not piece:
                raise ProtocolError(ran_nothing(seen))
            total += len(piece)
            if total > MAX_NOISE:
                raise ProtocolError("the board's login shell prints without end")
            seen = seen[-_MOST_LINE:] + piece
        self._ahead = seen.partition(wanted)[2]

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            if self._ahead:
                piece, self._ahead = self._ahead[:count], self._ahead[count:]
            else:
                piece = os.read(self._link.receive.fileno(), min(count, CHUNK))
            if not piece:
                return b""
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def ran_nothing(noise: bytes) -> str:
    """Why a login ran nothing of ours: nologin, or one for SFTP alone, says it on its output."""
    lines = noise[-_MOST_LINE:].decode("utf-8", "replace").strip().splitlines()
    said = f", and said {printable(lines[-1].strip())!r}" if lines else ""
    return f"the board's shell ended before it ran anything{said}: can this user run commands?"
