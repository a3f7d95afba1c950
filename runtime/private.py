"""Files and folders that nobody but their owner and root can change.

In: a path. Out: its bytes, or why they are not believed. Used where trust is kept (lists of keys,
the install root, finished engines); standard library only, because it travels with the agent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

_MOST_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)


class NotPrivate(Exception):
    """A file or folder that is not believed; the text says why and what to do."""


def owners(*more: int) -> frozenset[int]:
    """Users whose files are believed: root, this process's user, and ``more``."""
    return frozenset({0, os.geteuid(), *more})


def why_not(path: str | os.PathLike[str], status: os.stat_result, allowed: Collection[int]) -> str:
    """Why something of this ``status`` is not believed; empty where it is."""
    if status.st_uid not in allowed:
        return f"{path} belongs to another user (id {status.st_uid}): chown it"
    if status.st_mode & 0o022:
        return f"{path} can be written by other users: chmod go-w it"
    return ""


def check_folder(path: str | os.PathLike[str], allowed: Collection[int] | None = None) -> None:
    """The real folder ``path`` is private; the folders above it cannot be exchanged by everybody.

    Raises:
        NotPrivate: it is no folder, a link, of another user, or others can write to it.
        OSError: it cannot be looked at.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotPrivate(f"{path} is not a folder: move it away")
    why = why_not(path, status, owners() if allowed is None else allowed)
    why = why or next(_open_parents(os.path.realpath(path)), "")
    if why:
        raise NotPrivate(why)


def _open_parents(path: str) -> Iterator[str]:
    """Folders above ``path`` in which every user can rename everything."""
    parent = os.path.dirname(path)
    while parent != path:
        mode = os.stat(parent).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield f"{parent} can be written by every user: chmod o-w it, or chmod +t it"
        path, parent = parent, os.path.dirname(parent)


def read_private(
    path: str | os.PathLike[str], allowed: Collection[int] | None = None, most: int = _MOST_BYTES
) -> bytes:
    """The bytes of a plain file that only its owner and root can change, opened once.

    Raises:
        NotPrivate: a link, a pipe, a folder, a file with two names, too large, or others can
            write to it.
        OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        if os.path.islink(path):
            raise NotPrivate(f"{path} is a symbolic link: put the file itself there") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise NotPrivate(f"{path} is not a plain file with one name: move it away")
        why = why_not(path, status, owners() if allowed is None else allowed)
        if why:
            raise NotPrivate(why)
        data = bytearray()
        while chunk := os.read(descriptor, 1 << 16):
            data += chunk
            if len(data) > most:
                raise NotPrivate(f"{path} is larger than {most} bytes: it is not ours")
        return bytes(data)
    finally:
        os.close(descriptor)
