"""A process that dies at a chosen change of the file system, as kill -9 or a power cut ends it.

Python tells its audit hooks of every change before it is made; a fork installs one and ends itself
there without any clean-up. Changes made by other programs (ssh-keygen) are not seen.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from tatvpr_edge.spec.errors import TatvprError

_CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link"}
)
_DIED, _FAILED = 77, 78


def _is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    return event in _CHANGES or (
        event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_ACCMODE)
    )


def dies_at(
    change: int, work: Callable[[], object], last: Callable[[], object] = lambda: None
) -> bool:
    """Run ``work`` in a fork that dies before its change number ``change`` (from 0).

    Args:
        last: what the fork does as it dies.

    Returns:
        Whether it died; False: it made fewer changes and ended well.

    Raises:
        AssertionError: it failed in another way.
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if _is_change(event, arguments) or event == "fcntl.flock":
                seen += 1
                if seen == change + 1:
                    last()
                    os._exit(_DIED)

        try:
            sys.addaudithook(hook)
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(_FAILED)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _DIED), f"the work ended with {status}"
    return status == _DIED


def fails_beyond(room: int, work: Callable[[], object], what: int = resource.RLIMIT_FSIZE) -> bool:
    """Run ``work`` in a fork whose files may not grow beyond ``room`` bytes: the kernel fails the
    write in the middle of a file, as on a full disk.

    Args:
        what: ``RLIMIT_NOFILE``: instead, ``room`` files may be opened at a time.

    Returns:
        Whether it was refused by an error of ours or of the system; False: it ended well.

    Raises:
        AssertionError: it ended in another way.
    """
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if what == resource.RLIMIT_NOFILE:
            spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(room + 1)]
            room = spare[-1]  # the lowest number that is none any more
            for descriptor in spare:
                os.close(descriptor)
        resource.setrlimit(what, (room, resource.getrlimit(what)[1]))
        try:
            work()
            os._exit(0)
        except (OSError, TatvprError):
            os._exit(_DIED)
        except BaseException:
            os._exit(_FAILED)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _DIED), f"the work ended with {status}"
    return status == _DIED


def fails_at(change: int, work: Callable[[], object]) -> str | None:
    """Run ``work`` in a fork whose change number ``change`` (from 0) of the file system, or lock,
    or look at a folder that it would sync, fails: once, as of a bad block, a network's file system
    without locks, or a process with too many open files.

    Returns:
        The name of the call that failed; None: there were fewer.

    Raises:
        AssertionError: the work ended with anything but an error of ours or of the system.
    """
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        seen, removed = 0, set[str]()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event == "shutil.rmtree":
                removed.add(os.fspath(arguments[0]))  # and a look at it is no look to sync it
            looks = event == "open" and isinstance(arguments[0], str | os.PathLike)
            looks = looks and os.fspath(arguments[0]) not in removed and os.path.isdir(arguments[0])
            if _is_change(event, arguments) or event == "fcntl.flock" or looks:
                seen += 1
                if seen == change + 1:
                    os.write(say, event.encode())
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

        try:
            sys.addaudithook(hook)
            work()
            os._exit(0)
        except (OSError, TatvprError):
            os._exit(_DIED)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(_FAILED)
    os.close(say)
    with open(said, "rb") as pipe:
        failed = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _DIED), f"the work ended with {status}"
    return failed or None
