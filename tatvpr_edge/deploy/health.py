"""Whether a release works on this board: golden vectors before the switch, a live query after it.

Runs on the board as part of the agent (standard library only). The release's own runtime does the
work in child processes, so that a crash in compiled code or a hang ends the child and not the
deploy; this module starts them, times them, and reads one line of JSON from them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from tatvpr_edge.runtime import deployed, messages
from tatvpr_edge.spec.artifact import read_artifact, read_manifest
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import parse_json

_SAID_BYTES = 4096
_PAUSE_S = 0.02
_SOCKET = "health.sock"
#: A process may grow by what the artifact states, its map, and this much of interpreter and pages.
_SLACK_BYTES = 24 << 20
#: A step of a deploy that takes longer would hold the board's lock for ever: in seconds, a day.
LONGEST_STEP_S = 86_400.0


def seconds(message: dict[str, Any], name: str, usual: float) -> float:
    """How long the host lets a step take.

    Raises:
        DeployError: that is no number of seconds from 0 to a day.
    """
    given = message.get(name, usual)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise DeployError(f"{name} is {str(given)[:80]!r}: seconds, 0 to {LONGEST_STEP_S:.0f}")
    if not 0 <= given <= LONGEST_STEP_S:
        raise DeployError(f"{name} is {str(given)[:80]}: seconds, 0 to {LONGEST_STEP_S:.0f}")
    return float(given)


class Health:
    """Checks of the release in ``folder`` with ``python`` (words of a command).

    ``tick`` is called every few milliseconds while a child works.
    """

    def __init__(
        self, root: str, folder: str, python: list[str], tick: Callable[[], None] = lambda: None
    ) -> None:
        self.root = root
        self.folder = folder
        self.python = python
        self.tick = tick
        self._artifact = os.path.join(folder, deployed.ARTIFACT)

    def environment(self, root: str) -> dict[str, str]:
        """The children's environment: the release's own runtime first, if it has one."""
        environment = dict(os.environ)
        runtime = os.path.join(self.folder, deployed.RUNTIME)
        if os.path.isdir(runtime):
            environment["PYTHONPATH"] = runtime
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment[deployed.ROOT_VARIABLE] = root
        return environment

    def golden(self, seconds: float) -> dict[str, Any]:
        """Run the artifact's golden vectors; what the runtime's ``verify --json`` said.

        Raises:
            DeployError: they differ, the runtime cannot run, crashes, or exceeds ``seconds``.
        """
        with self._judging("verify") as child:
            self._wait(child, seconds, "the golden vectors")
            said = child.said()
            try:
                document = parse_json(said)
            except ValueError:
                document = None
            if child.process.returncode or not isinstance(document, dict):
                raise DeployError(f"the golden vectors did not pass: {child.why()}")
        return document

    def finish(self, seconds: float) -> str:
        """Let the board finish what only it can (its GPU's engine); one line of what came of it.

        Never an error: until an engine is finished and verified, the CPU library of the same
        artifact answers.
        """
        with self._judging("finish") as child:
            try:
                self._wait(child, seconds, "finishing the GPU engine")
                line = parse_json(child.said())["line"]
            except (DeployError, ValueError, KeyError, TypeError) as error:
                return f"the GPU engine was not finished ({error}); the CPU library answers"
        return str(line)

    def alive(self, start_s: float, settle_s: float) -> dict[str, Any]:
        """Start the release's service, let it answer, watch it for ``settle_s``, and end it.

        Returns its last self-test: ``{"latency_ms", "resident_bytes", "descriptors", ...}``.

        Raises:
            DeployError: it does not start or answer in time, its answers are wrong, it takes more
                memory than the artifact states, leaks descriptors, or dies.
        """
        with tempfile.TemporaryDirectory(prefix="tatvpr-") as folder:
            path = os.path.join(folder, _SOCKET)
            arguments = ["serve", "--root", self.root, "--socket", path, "--until-stdin-closes"]
            with self._child(arguments, root=self.root) as child:
                deadline = time.monotonic() + start_s
                first = self._self_test(child, path, deadline)
                last, until = first, time.monotonic() + settle_s
                while time.monotonic() < until:
                    self._sleep(child, min(0.5, settle_s / 2))
                    last = self._self_test(child, path, time.monotonic() + start_s)
                self._check_promises(first, last)
                if os.path.isfile(os.path.join(self.folder, deployed.MAP)):
                    self._query(child, path, time.monotonic() + start_s)
                return last

    def _query(self, child: _Child, path: str, deadline: float) -> None:
        """A release with a map answers a real question: where was its golden frame taken?"""
        artifact = read_artifact(self._artifact)
        frame = artifact.manifest.golden.frames[0]
        request = {
            "op": "query",
            "format": "RGB888",
            "width": frame.width,
            "height": frame.height,
            "planes": [[frame.height, 3 * frame.width]],
        }
        try:
            answer = self._ask(child, path, request, deadline, artifact.read(frame.path))
        except ConnectionError:
            raise DeployError(f"the release's service ended a query: {child.why()}") from None
        if not answer.get("ok"):
            why = str(answer.get("error"))[:300]
            raise DeployError(f"the release does not answer a query of its map: {why}")

    def _check_promises(self, first: dict[str, Any], last: dict[str, Any]) -> None:
        promised = last.get("promised_bytes")
        grown = last.get("grown_bytes")
        if isinstance(promised, int) and isinstance(grown, int) and grown > promised + _SLACK_BYTES:
            raise DeployError(
                f"the release takes {grown / 1e6:.0f} MB of memory; its artifact states "
                f"{promised / 1e6:.0f} MB"
            )
        before, after = first.get("descriptors"), last.get("descriptors")
        if isinstance(before, int) and isinstance(after, int) and after > before + 2:
            raise DeployError(f"the release leaks descriptors: {before} open, then {after}")

    def _self_test(self, child: _Child, path: str, deadline: float) -> dict[str, Any]:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeployError(f"the release did not answer in time: {child.why()}")
            self._sleep(child, 0)
            try:
                answer = self._ask(child, path, {"op": "selftest"}, deadline)
            except (FileNotFoundError, ConnectionError):  # not listening yet, or it died
                self._sleep(child, _PAUSE_S)
                continue
            if not answer.get("ok"):
                why = str(answer.get("error"))[:300]
                raise DeployError(f"the release fails its self-test: {why}")
            return answer

    def _ask(
        self,
        child: _Child,
        path: str,
        request: dict[str, Any],
        deadline: float,
        blob: bytes = b"",
    ) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
            with messages.short_path(path) as short:
                connection.connect(short)
            try:
                connection.sendall(messages.encode(request, blob))
            except TimeoutError:
                raise DeployError(f"the release takes no query: {child.why()}") from None

            def receive(count: int) -> bytes:
                received = b""
                while len(received) < count:
                    if time.monotonic() > deadline:
                        raise DeployError(f"the release did not answer in time: {child.why()}")
                    self._sleep(child, 0)
                    if select.select([connection], [], [], _PAUSE_S)[0]:
                        piece = connection.recv(count - len(received))
                        if not piece:
                            raise ConnectionError
                        received += piece
                return received

            try:
                reply = messages.decode(receive)
            except ValueError:
                reply = None
        if reply is None:
            raise DeployError("the release's service does not speak our protocol")
        return reply[0]

    # ---- children ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _judging(self, command: str) -> Iterator[_Child]:
        """A child that runs ``command`` on the artifact, in an install root that insists on
        nothing, its lowest serial the artifact's own. The agent has judged that, perhaps as an
        older one that is permitted, or by a clock that is not set; a child asks for its age again,
        wherever it looks, where the machine insists on keys."""
        with tempfile.TemporaryDirectory(prefix="tatvpr-") as root:
            with open(os.path.join(root, deployed.STATE), "w", encoding="ascii") as sink:
                json.dump({"floor": read_manifest(self._artifact).serial}, sink)
            with self._child([command, self._artifact, "--json"], root) as child:
                yield child

    @contextlib.contextmanager
    def _child(self, arguments: list[str], root: str) -> Any:
        # In memory: what it says of a full disk has room there.
        with _memory() as output, _memory() as errors:
            try:
                process = subprocess.Popen(
                    [*self.python, "-m", "tatvpr_edge.runtime", *arguments],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=errors,
                    cwd=self.folder,  # "-m" puts the working folder on the path: ours, then
                    env=self.environment(root),
                    start_new_session=True,
                )
            except OSError as error:
                raise DeployError(f"cannot run {self.python[0]!r}: {error.strerror}") from None
            try:
                yield _Child(process, output, errors)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()

    def _wait(self, child: _Child, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while child.process.poll() is None:
            if time.monotonic() > deadline:
                raise DeployError(f"{what} took more than {seconds:g} s: {child.why()}")
            self.tick()
            time.sleep(_PAUSE_S)

    def _sleep(self, child: _Child, seconds: float) -> None:
        """Let time pass while the service lives.

        Raises:
            DeployError: it died.
        """
        until = time.monotonic() + seconds
        while True:
            self.tick()
            if child.process.poll() is not None:
                raise DeployError(f"the release's service ended by itself: {child.why()}")
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_PAUSE_S, left))


def _memory() -> BinaryIO:
    """A file that lies on no disk, where Python knows how; without it the runtime says why no
    library can be opened."""
    if not hasattr(os, "memfd_create"):
        return tempfile.TemporaryFile()
    return open(os.memfd_create("tatvpr-said"), "w+b")


class _Child:
    def __init__(self, process: Any, output: Any, errors: Any) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    def said(self) -> bytes:
        """Its standard output, up to a limit."""
        self._output.seek(0)
        data: bytes = self._output.read(1 << 20)
        return data

    def why(self) -> str:
        """One line for people: the exit status and the last thing it said."""
        status = self.process.poll()
        ended = "still running" if status is None else f"exit status {status}"
        if status is not None and status < 0:
            ended = f"ended by signal {-status}"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _SAID_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        if not lines:
            lines = self.said()[-_SAID_BYTES:].decode("utf-8", "replace").strip().splitlines()
        return f"{ended}: {lines[-1][:400]}" if lines else f"{ended}, nothing said"
