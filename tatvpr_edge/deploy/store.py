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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.private import NotPrivate, check_folder
from tatvpr_edge.runtime.table import Table, check_release_name, is_release_name
from tatvpr_edge.runtime.whole import (
    BYTECODE,
    MOST_NAME,
    check_files,
    plain,
    read,
    read_table,
    walk,
)
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.targets import refuse_in_artifact
from tatvpr_edge.spec.text import parse_json

from .disk import Disk

#: More than a switch, its health check and a list of keys write together.
SPARE_BYTES = 256 << 10
#: A program that starts holds the lock, shared, as long as it takes to see whether a deploy does.
_TRIES, _AGAIN_S = 10, 0.02
_FOLDERS = (deployed.RELEASES, deployed.STAGING, deployed.TRASH, deployed.TRUST)
#: Below ``staging/NAME``: what is complete of a release, and files that were cut off.
TREE, PARTS = "tree", "parts"


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
        """Make the folders that are missing; refuse links, folders that others may write, and a
        root that holds something else.

        Raises:
            DeployError: something is in the way.
            OSError: the root is not writable.
        """
        if os.pathsep in self.root:
            raise DeployError(
                f"{self.root} on the board holds a {os.pathsep!r}, which in PYTHONPATH ends a "
                "folder's name: name another --root"
            )
        self._spare_others()
        missing = []
        folder = self.root
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in [*reversed(missing), *(self.path(name) for name in _FOLDERS)]:
            if not os.path.lexists(folder):
                self.disk.mkdir(folder)
                self.disk.sync_folder(os.path.dirname(folder))
        for folder in [self.root, *(self.path(name) for name in _FOLDERS)]:
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode):
                raise DeployError(f"{folder} on the board is not a folder: move it away")
            try:
                check_folder(folder)
            except NotPrivate as error:
                raise DeployError(f"on the board, {error}") from None
        if os.statvfs(self.root).f_flag & os.ST_RDONLY:  # a kernel does so after a fault of a card
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.root)
        if not os.access(self.root, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), self.root)

    def _spare_others(self) -> None:
        """Refuse a root that a deploy would cost somebody something: folders and files are called
        as ours elsewhere, too. One sign that the root is ours is enough."""
        root = Path(self.root)
        holder = deployed.read_json(root / deployed.LOCK)
        if "history" in deployed.read_state(root) or "who" in holder:
            return
        found = [self.path(name) for name in (deployed.STATE, deployed.SPARE)]
        found = [path for path in found if os.path.lexists(path)]
        for folder in (deployed.RELEASES, deployed.STAGING, deployed.TRASH):
            with contextlib.suppress(OSError):
                found += [self.path(folder, name) for name in sorted(os.listdir(root / folder))]
        for path in found:
            if any(os.path.lexists(os.path.join(path, x)) for x in (deployed.RELEASE, TREE, PARTS)):
                return
        for path in found:  # empty folders cost nothing: a power cut leaves them of a first deploy
            if not os.path.isdir(path) or os.listdir(path):
                raise DeployError(
                    f"{path} on the board was made by no deploy, and would be removed or written "
                    "over by one: name another --root, or move it away"
                )
        refuse_in_artifact(root, DeployError)

    def lock(self, who: str) -> None:
        """Take the lock, which the kernel releases when this process ends, however it ends: no
        stale lock and no clock can matter. The file's content is for people only.

        Raises:
            DeployError: another deploy holds it.
            OSError: the root is not writable.
        """
        path = self.path(deployed.LOCK)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # Whoever can open it can hold it for ever; earlier versions let everybody.
            os.fchmod(self._lock, 0o600)
            for left in reversed(range(_TRIES)):
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not left:
                        raise
                self.tick()
                time.sleep(_AGAIN_S)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and self._lock is not None:
                raise DeployError(self._locked()) from None
            raise
        holder = {"pid": os.getpid(), "since": time.monotonic(), "who": who}
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
            holder = parse_json(os.pread(self._lock, 4096, 0))
            seconds = time.monotonic() - holder["since"]
            who, pid = str(holder["who"])[:80], int(holder["pid"])
            said = f"{who!r} (process {pid} on the board, for {seconds:.0f} s)"
            remedy = f"wait, or end it with `kill {pid}` on the board"
        except (ValueError, KeyError, TypeError, OverflowError):
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
        failed, floor, of_lists = (raw.get(key) for key in ("failed", "floor", "release_floor"))
        return {
            "history": history,
            "pending": pending if isinstance(pending, dict) else None,
            # Of confirmed releases only, unless it was lost.
            "release_floor": (
                of_lists if type(of_lists) is int else deployed.lowest_release(Path(self.root))
            ),
            "floor": floor if type(floor) is int else deployed.lowest_serial(Path(self.root)),
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

    def copy(self, source: str, target: str, executable: bool = False) -> str:
        """Copy a plain file to a new one, which is not synced; the SHA-256 of what was copied.

        Raises:
            DeployError: ``source`` cannot be read, or is no plain file.
        """
        digest = hashlib.sha256()
        with plain(source) as whole:
            descriptor = self.disk.create(target, executable)
            try:
                while chunk := read(whole, os.path.basename(source)):
                    digest.update(chunk)
                    self.disk.write(descriptor, chunk)
                    self.tick()
            finally:
                self.disk.close(descriptor)
        return digest.hexdigest()

    def discard(self, path: str) -> None:
        """Remove whatever is at ``path``, links not followed; nothing there is fine."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            self.disk.unlink(path)
            return
        while (deep := self._remove(path, path)) is not None:
            # Nearer, because further down its name would be longer than a system call takes.
            self.disk.rename(deep, os.path.join(path, os.urandom(8).hex()))

    def _remove(self, path: str, top: str) -> str | None:
        """Remove the folder ``path``; a folder so deep below ``top`` that it has to be moved first
        is given back instead."""
        if len(path) - len(top) > MOST_NAME:
            return path
        for name in os.listdir(path):
            inside = os.path.join(path, name)
            if not stat.S_ISDIR(os.lstat(inside).st_mode):
                self.disk.unlink(inside)
            elif (deep := self._remove(inside, top)) is not None:
                return deep
        self.disk.rmdir(path)
        return None

    # ---- room ---------------------------------------------------------------------------------

    def keep_spare(self) -> None:
        """Hold some room on the disk for the time when it is full; best effort."""
        path = self.path(deployed.SPARE)
        with contextlib.suppress(OSError):
            if not os.path.isfile(path) or os.path.getsize(path) < SPARE_BYTES:
                # Random, because a disk may compress.
                self.replace(path, os.urandom(SPARE_BYTES))

    def is_short(self) -> bool:
        """Whether a switch may find no room for what it has to write."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize < SPARE_BYTES

    def drop_spare(self) -> None:
        """Give the held room up."""
        for name in (deployed.SPARE, deployed.SPARE + ".new"):
            self.discard(self.path(name))

    # ---- releases ----------------------------------------------------------------------------

    def release(self, name: str) -> str:
        """The folder of an installed release."""
        return self.path(deployed.RELEASES, check_release_name(name))

    def folders(self) -> list[str]:
        """What lies among the releases, also what is left of one. What no deploy can have called so
        (a copy that somebody made by hand) is nobody's but theirs."""
        return sorted(filter(is_release_name, os.listdir(self.path(deployed.RELEASES))))

    def releases(self) -> list[str]:
        """Names of installed releases."""
        return [
            name
            for name in self.folders()
            if os.path.isfile(self.path(deployed.RELEASES, name, deployed.RELEASE))
        ]

    def table(self, name: str) -> Table | None:
        """The files of an installed release; None where its list is missing or damaged."""
        try:
            return read_table(self.release(name))
        except DeployError:
            return None

    def drop_bytecode(self) -> None:
        """Remove from all releases what Python compiled there: nobody sent it, and it would run in
        place of what was sent."""
        for name in self.releases():
            folder = self.release(name)
            found = [inside for inside, is_folder in walk(folder, strict=False) if is_folder]
            found = [inside for inside in found if os.path.basename(inside) == BYTECODE]
            for inside in found:
                self.discard(os.path.join(folder, inside))
            if found:
                self.warnings.append(f"release {name} held compiled Python, which was removed")

    def fault(self, name: str, own_map: bool = False) -> str | None:
        """What is wrong with an installed release; None where every byte is as it was sent, but for
        those of a map that the board may have written anew (``own_map``)."""
        try:
            check_files(
                self.release(name),
                read_table(self.release(name)),
                self.tick,
                skip=lambda path: own_map and path == deployed.MAP,
            )
        except DeployError as error:
            return str(error)
        return None
