"""The file system and the commands of a board, under a root that the caller names.

Every source reads through a `Tree`, so that a test hands over a folder that looks like a board,
and a container hands over the folder where its host's /sys is mounted.
"""

from __future__ import annotations

import errno
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tatvpr_edge.runtime.telemetry.reading import Condition

_MAX_BYTES = 4096  # a sysfs attribute is at most one page
_COMMAND_FOLDERS = ("usr/bin", "bin", "usr/sbin", "sbin", "usr/local/bin", "opt/vc/bin")
_BY_ERRNO = {
    errno.ENOENT: Condition.ABSENT,
    errno.ENOTDIR: Condition.ABSENT,
    errno.ENODEV: Condition.ABSENT,
    errno.EACCES: Condition.DENIED,
    errno.EPERM: Condition.DENIED,
}


class ReadFault(Exception):
    """A value could not be read; internal to this package, sources turn it into a `Reading`."""

    def __init__(self, condition: Condition, detail: str) -> None:
        super().__init__(detail)
        self.condition = condition
        self.detail = detail


class Tree:
    """A board's files and commands under ``root``.

    Paths are written absolute, as on the board ("/sys/class/..."), and taken below ``root``.
    """

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = Path(root)

    def path(self, path: str) -> Path:
        """Where the board's ``path`` lies on this machine."""
        return self.root / path.lstrip("/")

    def shown(self, path: Path) -> str:
        """The board's own name for a path below the root."""
        try:
            return "/" + str(path.relative_to(self.root))
        except ValueError:
            return str(path)

    def glob(self, pattern: str) -> list[Path]:
        """Paths that match, in natural order (hwmon2 before hwmon10); none where not readable."""
        try:
            found = list(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []
        return sorted(found, key=_natural)

    def text(self, path: Path) -> str:
        """The file's stripped text.

        Raises:
            ReadFault: it is absent, denied, empty, not text, or the driver answers with an error.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                raw = file.read(_MAX_BYTES)
        except OSError as error:
            condition = _BY_ERRNO.get(error.errno or 0, Condition.IO_ERROR)
            reason = errno.errorcode.get(error.errno or 0, "error")
            raise ReadFault(condition, f"{self.shown(path)}: {reason}") from None
        try:
            text = (raw or b"").decode("utf-8").strip(" \t\r\n\0")
        except UnicodeDecodeError:
            raise ReadFault(Condition.UNREADABLE, f"{self.shown(path)}: not text") from None
        if not text:
            raise ReadFault(Condition.UNREADABLE, f"{self.shown(path)}: empty")
        return text

    def number(self, path: Path) -> float:
        """The file's finite number; raises `ReadFault` as `text` does, and for anything else."""
        text = self.text(path)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ReadFault(
                Condition.UNREADABLE, f"{self.shown(path)}: {text[:40]!r} is not a number"
            )
        return value

    def optional_text(self, path: Path) -> str | None:
        """The file's text, or None where there is none to be had."""
        try:
            return self.text(path)
        except ReadFault:
            return None

    def optional_number(self, path: Path) -> float | None:
        """The file's number, or None where there is none to be had."""
        try:
            return self.number(path)
        except ReadFault:
            return None

    def command(self, name: str) -> Path | None:
        """Path of a board's command, or None where the board has none."""
        for folder in _COMMAND_FOLDERS:
            path = self.root / folder / name
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        return None

    def run(self, command: Path, arguments: Sequence[str], timeout_s: float = 2.0) -> str:
        """What a command prints on standard output.

        Raises:
            ReadFault: it cannot be started, fails, prints no text, or takes longer than allowed.
        """
        try:
            done = subprocess.run(
                [str(command), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ReadFault(
                Condition.IO_ERROR, f"{command.name}: no answer in {timeout_s:g} s"
            ) from None
        except OSError as error:
            condition = _BY_ERRNO.get(error.errno or 0, Condition.IO_ERROR)
            raise ReadFault(condition, f"{command.name}: {error.strerror}") from None
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
            tail = f": {said[0][:120]}" if said else ""
            raise ReadFault(
                Condition.IO_ERROR, f"{command.name}: exit status {done.returncode}{tail}"
            )
        return text


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers."""
    key: list[tuple[int, int, str]] = []
    run = ""
    for char in str(path) + "\0":
        if run and char.isdecimal() != run[-1].isdecimal():
            key.append((0, int(run), "") if run.isdecimal() else (1, 0, run))
            run = ""
        run += char
    return key


class TreeSource:
    """Sensors that are read through a `Tree`."""

    def close(self) -> None:
        """Nothing is held open between readings."""
