"""Lines of NVIDIA's ``tegrastats``: rails in mW, temperatures in degrees.

Used only where the module's monitors cannot be read from sysfs. Figures come as ``now/average``
or ``now/average/third``, with or without ``mW``, and may be negative.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path

from tatvpr_edge.runtime.telemetry.rails import is_not_connected, rail_reading, total_of_rails
from tatvpr_edge.runtime.telemetry.reading import Condition, Reading, Role
from tatvpr_edge.runtime.telemetry.thermal import temperature_reading
from tatvpr_edge.runtime.telemetry.tree import Tree

_RAIL = re.compile(
    r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?/(-?\d+)(?:mW)?(?:/(-?\d+)(?:mW)?)?(?!\S)"
)
_ZONE = re.compile(r"(?<!\S)([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?(?!\S)")
_MAX_PENDING_BYTES = 16384
_INTERVAL_MS = 500
_RESTART_S = 5.0


def parse_tegrastats(line: str, now_s: float, source: str = "tegrastats") -> list[Reading]:
    """Rails, their total and temperatures of one line; power is the first figure ("now")."""
    rails: list[Reading] = []
    for label, now_mw, *_ in _RAIL.findall(line):
        if is_not_connected(label):
            continue
        rails.append(rail_reading(label, source, now_s, float(now_mw)))
    zones = [
        temperature_reading(zone, float(degrees_c), source, now_s)
        for zone, degrees_c in _ZONE.findall(line)
    ]
    return [*rails, total_of_rails(rails, source, now_s), *zones]


class TegrastatsSource:
    """A running ``tegrastats``, read without ever waiting for it; one that ended (``tegrastats
    --stop`` ends all) is started again. A forked child starts its own: of one, parent and child
    would each take lines that the other waits for.
    """

    name = "tegrastats"

    def __init__(self, command: Path) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._of = os.getpid()
        self._next_s = -math.inf
        self._pending = b""
        self._latest: list[Reading] = []
        self._fault = ""

    @classmethod
    def find(cls, tree: Tree) -> TegrastatsSource | str:
        """The board's tegrastats, or the line that says why there is none."""
        command = tree.command("tegrastats")
        return cls(command) if command else "no tegrastats command"

    def describe(self) -> str:
        """The command, for people."""
        return f"{self._command.name} every {_INTERVAL_MS} ms"

    def read(self, now_s: float) -> list[Reading]:
        """The readings of the newest complete line; they keep the time at which it came."""
        self._leave_parents()
        if self._process is None and not 0 < self._next_s - now_s <= _RESTART_S:
            self._next_s = now_s + _RESTART_S
            self._start()
        self._take(now_s)
        if self._latest:
            return list(self._latest)
        condition = Condition.IO_ERROR if self._fault else Condition.PENDING
        about = "total", Role.TOTAL, "mW", self.name, now_s
        why = self._fault or "no line yet"
        return [Reading(*about, None, condition, why, covers="whole module")]

    def close(self) -> None:
        """Ends the process that `read` started."""
        self._leave_parents()
        self._next_s = -math.inf
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def _leave_parents(self) -> None:
        """Lets go of a process that a parent of this one started, and reads on."""
        if self._of == os.getpid():
            return
        self._of, self._next_s, self._pending = os.getpid(), -math.inf, b""
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
            self._process.returncode = 0  # nothing for this process to wait for
        self._process = None

    def _start(self) -> None:
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                [str(self._command), "--interval", str(_INTERVAL_MS)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            self._fault = f"{self._command.name}: {error.strerror}"
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _take(self, now_s: float) -> None:
        if self._process is None or self._process.stdout is None:
            return
        try:
            while chunk := os.read(self._process.stdout.fileno(), 4096):
                self._pending = (self._pending + chunk)[-_MAX_PENDING_BYTES:]
            ended = True
        except BlockingIOError:
            ended = False
        *lines, self._pending = self._pending.split(b"\n")
        for line in reversed(lines):
            readings = parse_tegrastats(line.decode("utf-8", "replace"), now_s)
            if len(readings) > 1:  # more than the total, which is always there
                self._latest = readings
                break
        if ended:
            self._fault = f"{self._command.name} ended (exit status {self._process.poll()})"
            self.close()
            self._next_s = now_s + _RESTART_S
