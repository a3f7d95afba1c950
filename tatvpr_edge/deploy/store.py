"""The board's install root: its layout, lock, state, and the assembly of a release.

Runs on the board as part of the agent (standard library only). A release is assembled under
``staging``, synced and hashed there, and only then renamed into ``releases``; nothing here touches
``current`` (see :mod:`tatvpr_edge.deploy.switch`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.private import NotPrivate, check_folder
from tatvpr_edge.spec.errors import DeployError

from .disk import Disk
from .protocol import CHUNK
from .table import Row, Table, check_release_name, parse_table

_FOLDERS = (deployed.RELEASES, deployed.STAGING, deployed.TRASH, deployed.TRUST)
#: What may lie in an installed release beside its files: places appended on the board, and what
#: Python itself writes.
_ADDED = (deployed.MAP + ".",)


def boot_id() -> str:
    """Names this boot of the board; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            return source.read().strip()
    except OSError:
        return ""


class Store:
    """The install root ``root`` (an absolute path, links resolved), changed through ``disk``.

    ``tick`` is called between pieces of long work; it may raise to stop it.
    """

    def __init__(self, root: str, disk: Disk, tick: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.disk = disk
        self.tick = tick
        self.warnings: list[str] = []
        self._lock: int | None = None

    def path(self, *parts: str) -> str:
        """``root`` joined with ``parts``."""
        return os.path.join(self.root, *parts)

    # ---- layout and lock ---------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folders that are missing; refuse links and folders that others may write.

        Raises:
            DeployError: something is in the way, or the root is not writable.
        """
        missing = []
        folder = self.root
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        try:
            for folder in [*reversed(missing), *(self.path(name) for name in _FOLDERS)]:
                if not os.path.lexists(folder):
                    self.disk.mkdir(folder)
                    self.disk.sync_folder(os.path.dirname(folder))
        except OSError as error:
            raise DeployError(self._why(error, "make " + folder)) from None
        for folder in [self.root, *(self.path(name) for name in _FOLDERS)]:
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode):
                raise DeployError(f"{folder} on the board is not a folder: move it away")
            try:
                check_folder(folder)
            except NotPrivate as error:
                raise DeployError(f"on the board, {error}") from None
        if not os.access(self.root, os.W_OK):
            raise DeployError(
                f"{self.root} on the board is not writable by this user: chown it, log in as its "
                "owner, or name another --root"
            )

    def lock(self, who: str) -> None:
        """Take the lock, which the kernel releases when this process ends, however it ends: no
        stale lock and no clock can matter. The file's content is for people only.

        Raises:
            DeployError: another deploy holds it.
        """
        path = self.path(deployed.LOCK)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # Whoever can open it can hold it for ever; earlier versions let everybody.
            os.fchmod(self._lock, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and self._lock is not None:
                raise DeployError(self._locked()) from None
            raise DeployError(self._why(error, "lock " + path)) from None
        holder = {"pid": os.getpid(), "boot": boot_id(), "since": time.monotonic(), "who": who}
        with contextlib.suppress(OSError):  # a full disk does not matter here
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, json.dumps(holder).encode("ascii"), 0)

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> str:
        assert self._lock is not None
        try:
            holder = json.loads(os.pread(self._lock, 4096, 0))
            seconds = time.monotonic() - holder["since"]
            who, pid = str(holder["who"])[:80], int(holder["pid"])
            said = f"{who!r} (process {pid} on the board, for {seconds:.0f} s)"
            remedy = f"wait, or end it with `kill {pid}` on the board"
        except (ValueError, KeyError, TypeError):
            said, remedy = "another process", "wait for it"
        os.close(self._lock)
        self._lock = None
        return f"another deploy to this board is running: {said}: {remedy}"

    # ---- state -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """``state.json`` with every key present; damage is reported and healed from the releases'
        own dates, so that it never stops a deploy."""
        raw = deployed.read_state(Path(self.root))
        history = raw.get("history")
        if not isinstance(history, list) or not all(isinstance(x, str) for x in history):
            if raw or os.path.lexists(self.path(deployed.STATE)):
                self.warnings.append("state.json on the board was damaged and is written anew")
            history = sorted(
                self.releases(), key=lambda name: os.lstat(self.release(name)).st_mtime
            )
        pending = raw.get("pending")
        failed = raw.get("failed")
        return {
            "history": history,
            "pending": pending if isinstance(pending, dict) else None,
            "floor": deployed.lowest_serial(Path(self.root)),
            "failed": failed if isinstance(failed, dict) else {},
        }

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace ``state.json`` atomically."""
        self.replace(self.path(deployed.STATE), json.dumps(state, indent=1).encode("ascii") + b"\n")

    def replace(self, path: str, data: bytes) -> None:
        """Write a file beside ``path``, sync it, and rename it there."""
        temporary = path + ".new"
        self.discard(temporary)
        self.write_file(temporary, data)
        self.disk.rename(temporary, path)
        self.disk.sync_folder(os.path.dirname(path))

    def write_file(self, path: str, data: bytes) -> None:
        """Write a new file and sync its content."""
        descriptor = self.disk.create(path)
        try:
            self.disk.write(descriptor, data)
            self.disk.sync(descriptor)
        finally:
            self.disk.close(descriptor)

    def discard(self, path: str) -> None:
        """Remove whatever is at ``path``, links not followed; nothing there is fine."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            self.disk.unlink(path)
            return
        for name in os.listdir(path):
            self.discard(os.path.join(path, name))
        self.disk.rmdir(path)

    # ---- releases ----------------------------------------------------------------------------

    def release(self, name: str) -> str:
        """The folder of an installed release."""
        return self.path(deployed.RELEASES, check_release_name(name))

    def releases(self) -> list[str]:
        """Names of installed releases."""
        return sorted(
            name
            for name in os.listdir(self.path(deployed.RELEASES))
            if os.path.isfile(self.path(deployed.RELEASES, name, deployed.RELEASE))
        )

    def table(self, name: str) -> Table | None:
        """The files of an installed release; None where its list is missing or damaged."""
        try:
            with open(os.path.join(self.release(name), deployed.RELEASE), "rb") as source:
                table = parse_table(json.loads(source.read()))
        except (OSError, ValueError, DeployError):
            return None
        # The name holds the list's hash; ".2" and so on is a repaired copy of the same release.
        return table if name == table.name or name.startswith(table.name + ".") else None

    def fault(self, name: str) -> str | None:
        """What is wrong with an installed release; None where every byte is as it was sent."""
        table = self.table(name)
        if table is None:
            return f"{deployed.RELEASE} is missing or damaged"
        try:
            self.check_tree(self.release(name), table, added=True)
            for row in table.rows:
                self.check_file(os.path.join(self.release(name), row.path), row)
        except DeployError as error:
            return str(error)
        return None

    def check_tree(self, folder: str, table: Table, added: bool = False) -> None:
        files = {row.path for row in table.rows} | {deployed.RELEASE}
        folders = {path[:i] for path in files for i, letter in enumerate(path) if letter == "/"}
        for name, is_folder in walk(folder):
            if name in (folders if is_folder else files):
                continue
            if added and ("__pycache__" in name.split("/") or name.startswith(_ADDED)):
                continue
            raise DeployError(f"{name!r} is in the release and not in its list")

    def check_file(self, path: str, row: Row) -> None:
        size, digest = hash_file(path, self.tick, row.path)
        if size != row.bytes or digest != row.sha256:
            raise DeployError(f"{row.path} is not what was sent: its SHA-256 or size differs")

    def _why(self, error: OSError, doing: str) -> str:
        return f"cannot {doing} on the board: {error.strerror}"


def walk(folder: str, inside: str = "", strict: bool = True) -> Iterator[tuple[str, bool]]:
    """(relative path, whether a folder) of everything below ``folder``, parents first.

    ``strict``: links, devices and files with a second name are refused.
    """
    for name in sorted(os.listdir(os.path.join(folder, inside) if inside else folder)):
        relative = inside + "/" + name if inside else name
        status = os.lstat(os.path.join(folder, relative))
        if stat.S_ISDIR(status.st_mode):
            yield relative, True
            yield from walk(folder, relative, strict)
        elif not strict or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            yield relative, False
        else:
            raise DeployError(f"{relative!r} is a link or not a plain file: refused")


@contextlib.contextmanager
def plain(path: str, name: str = "") -> Iterator[int]:
    """A descriptor of a plain file with one name; ``name`` is what errors call it."""
    name = name or os.path.basename(path)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except OSError as error:
        why = "is missing" if error.errno == errno.ENOENT else "is a link or cannot be read"
        raise DeployError(f"{name} {why}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise DeployError(f"{name} is not a plain file with one name")
        yield descriptor
    finally:
        os.close(descriptor)


def hash_file(path: str, tick: Callable[[], None], name: str = "") -> tuple[int, str]:
    """(size, lower-case hex SHA-256) of a plain file, called ``name`` in errors."""
    size, digest = 0, hashlib.sha256()
    with plain(path, name) as descriptor:
        while True:
            chunk = os.read(descriptor, CHUNK)
            if not chunk:
                return size, digest.hexdigest()
            size += len(chunk)
            digest.update(chunk)
            tick()
