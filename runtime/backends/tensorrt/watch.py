"""Run a child under a watch on time and memory.

A limit on address space (RLIMIT_AS) would refuse CUDA itself, which reserves far more of it than
it uses, and Jetsons share RAM between CPU and GPU, whose allocations are in no process's resident
set. So the watch reads both the child's resident set and what the whole board has left.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.text import parse_json

#: Never taken by the builder: what the robot's other programs may still ask for.
RESERVE_BYTES = 256 << 20
_PERIOD_S = 0.05


def available_bytes() -> int:
    """What Linux says may be allocated without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise ToolError("/proc/meminfo does not say what memory is available")


def _resident_bytes(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def run_watched(
    command: list[str], memory_bytes: int | None, seconds: float, doing: str
) -> dict[str, Any]:
    """Run ``command`` and return the JSON document in the last line of its standard output.

    Args:
        memory_bytes: its resident set may not exceed this; None does not watch memory.
        doing: what the child does, for the error.

    Raises:
        ToolError: it failed, was killed, took too long or too much; its own last line is quoted.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            why = _watch(child, memory_bytes, seconds)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        said, error = _tail(out), _tail(err)
    if why:
        raise ToolError(f"{doing}: {why}")
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        hint = ", most likely for want of memory" if name == "SIGKILL" else ""
        raise ToolError(f"{doing}: the child process was ended by {name}{hint}")
    if child.returncode:
        raise ToolError(f"{doing}: {error.removeprefix('error: ') or 'failed without a reason'}")
    try:
        document = parse_json(said)
    except ValueError:
        raise ToolError(f"{doing}: the child process did not answer") from None
    if not isinstance(document, dict):
        raise ToolError(f"{doing}: the child process did not answer")
    return document


def _watch(child: subprocess.Popen[bytes], memory_bytes: int | None, seconds: float) -> str:
    """Why the child has to be ended; empty when it ended by itself."""
    end = time.monotonic() + seconds
    while True:
        try:
            child.wait(_PERIOD_S)
            return ""
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() > end:
            return f"no end after {seconds:g} s: stopped"
        if memory_bytes is None:
            continue
        used = _resident_bytes(child.pid)
        if used > memory_bytes:
            return f"{used >> 20} MB taken, {memory_bytes >> 20} MB is the cap: stopped"
        if available_bytes() < RESERVE_BYTES // 2:
            return "the board was running out of memory: stopped"


def _tail(stream: Any) -> str:
    """The last line that is not empty."""
    stream.seek(0)
    lines = stream.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:1000]
