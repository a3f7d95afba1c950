"""Files of place maps on disk: who may write them, and what went wrong, in words.

Writers hold ``flock`` on ``NAME.lock``, a file of mode 0600 beside the map: other users of the
machine cannot stop them. Readers hold nothing and wait for nobody (``mapjournal.read_map`` says
how); :mod:`tatvpr_edge.spec.atomic` writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import MapError

#: How long a lock is waited for before the wait ends with an error that names its holder.
LOCK_WAIT_S = 10.0
_POLL_S = 0.002
_MODES = {os.O_RDONLY: "rb", os.O_WRONLY: "wb", os.O_RDWR: "r+b"}
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def explain(error: OSError) -> str:
    """An operating system's error in words for one line."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space and try again"
    if error.errno == errno.EISDIR:
        return "it is a folder, and a map is one file"
    return str(error.strerror or error)


@contextlib.contextmanager
def plain(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A file beside a map, unbuffered. Whoever may write to the folder can put something else under
    its name: a pipe, which would be waited for, a device without an end, a link to another file.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a symbolic link: remove it", str(path)) from None
    with open(descriptor, _MODES[flags & os.O_ACCMODE], buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device: remove it", str(path))
        yield file


def followed(path: str | Path) -> Path:
    """The map at ``path``, or the one that a link there leads to: a map has one journal and one
    lock, whatever name it is opened by, and is replaced where it lies."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def lock_path(path: str | Path) -> Path:
    """The lock of the map at ``path``."""
    return Path(f"{followed(path)}.lock")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Hold the map at ``path`` alone.

    Raises:
        MapError: the lock cannot be made, or another process held it for LOCK_WAIT_S; the text
            names that process.
    """
    path = followed(path)
    lock = lock_path(path)
    try:
        held = _lock(path, lock)
    except OSError as error:
        raise MapError(f"cannot lock the map {path} for writing: {explain(error)}") from None
    try:
        with contextlib.suppress(OSError):  # on a full disk it is held all the same, unnamed
            os.pwrite(held.fileno(), f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        held.close()


def _lock(path: Path, lock: Path) -> IO[bytes]:
    """The locked file that stands at ``lock``; its last holder removes it. It is an object, which
    closes itself where Ctrl-C comes before its holder can."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        with contextlib.ExitStack() as closing:
            held = closing.enter_context(open(lock, "r+b", buffering=0, opener=_opened))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(held.fileno()), os.stat(lock)):
                    closing.pop_all()
                    return held
            except FileNotFoundError:
                continue  # its holder ended in between
            except BlockingIOError:
                if time.monotonic() > end:
                    raise MapError(
                        f"the map {path} is held by {_holder(held.fileno())} for more than "
                        f"{LOCK_WAIT_S:g} s: end it, or try again"
                    ) from None
                time.sleep(_POLL_S)


def _opened(lock: str, _: int) -> int:
    return os.open(lock, _LOCK_FLAGS, 0o600)


def _holder(descriptor: int) -> str:
    """Who holds the lock, as far as it said so and still runs."""
    try:
        number = int(os.pread(descriptor, 32, 0))
        name = Path(f"/proc/{number}/comm").read_text(errors="replace").strip()
    except (OSError, ValueError):
        return "another process"
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return f"{printable} (process {number})"
