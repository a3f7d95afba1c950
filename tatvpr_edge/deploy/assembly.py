"""A release being put together on the board, below ``staging``.

Runs on the board as part of the agent (standard library only). What is already on the board is
taken from there, by content; what was cut off is continued; all of it is synced, read back and
hashed before one rename makes it a release. ``current`` is not touched here (see
:mod:`tatvpr_edge.deploy.switch`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.table import Row, Table, check_release_name
from tatvpr_edge.runtime.whole import check_file, check_tree, hash_file, walk
from tatvpr_edge.spec.errors import DeployError

from .store import PARTS, TREE, Store

_SPARE_BYTES = 1 << 20


def clear_staging(store: Store, keep: str = "") -> None:
    """Remove everything half assembled, except the release ``keep``."""
    for name in os.listdir(store.path(deployed.STAGING)):
        path = store.path(deployed.STAGING, name)
        if name != keep or not stat.S_ISDIR(os.lstat(path).st_mode):
            store.discard(path)


class Assembly:
    """The assembly of ``table`` in ``store``."""

    def __init__(self, store: Store, table: Table) -> None:
        self.store = store
        self.disk = store.disk
        self.table = table
        self.folder = store.path(deployed.STAGING, check_release_name(table.name))
        self.tree = os.path.join(self.folder, TREE)

    def _part(self, index: int) -> str:
        return os.path.join(self.folder, PARTS, str(index))

    def _place(self, row: Row) -> str:
        return os.path.join(self.tree, row.path)

    def plan(self) -> list[dict[str, Any]]:
        """Take from this board what is already here, and say what is needed: ``{index, have,
        sha256}``, ``have`` bytes of it from an interrupted transfer, with their hash.

        Raises:
            DeployError: the disk is too small.
        """
        clear_staging(self.store, self.table.name)
        self._distrust()
        for folder in (self.folder, self.tree, os.path.join(self.folder, PARTS)):
            if not os.path.isdir(folder):
                self.disk.mkdir(folder)
        for inside in sorted({os.path.dirname(row.path) for row in self.table.rows}):
            self._make_folders(inside)
        places = self._places()
        missing = [i for i, row in enumerate(self.table.rows) if not self._staged(row)]
        self._check_space(missing)
        needed = []
        for index in missing:
            row = self.table.rows[index]
            if not row.bytes:
                self.disk.close(self.disk.create(self._place(row), row.executable))
            elif not self._copied(row, places.get(row.sha256) or self._own_maps(row)):
                have, digest = self._received(self._part(index))
                needed.append({"index": index, "have": have, "sha256": digest})
        return needed

    def _received(self, part: str) -> tuple[int, str]:
        """How much of a file came before, and its hash; what cannot be read is no part of it."""
        if os.path.isfile(part):
            try:
                return hash_file(part, self.store.tick)
            except DeployError:
                self.store.discard(part)
        return 0, ""

    def receive(self, index: int, offset: int, chunks: Iterator[memoryview]) -> None:
        """Take a file's bytes from ``offset`` on; when they are complete it has its place."""
        row, part = self.table.rows[index], self._part(index)
        if offset and os.path.isfile(part) and os.path.getsize(part) >= offset:
            descriptor = self.disk.reopen(part, offset)
        elif offset:
            raise DeployError(f"{row.path}: the part sent before is gone from the board: run again")
        else:
            self.store.discard(part)
            descriptor = self.disk.create(part, row.executable)
        try:
            for chunk in chunks:
                offset += len(chunk)
                if offset > row.bytes:
                    raise DeployError(f"{row.path}: more bytes were sent than announced")
                self.disk.write(descriptor, chunk)
        finally:
            self.disk.close(descriptor)
        if offset == row.bytes:
            self.disk.rename(part, self._place(row))

    def drop(self, index: int) -> None:
        """Forget what was received of a file (its source changed meanwhile)."""
        self.store.discard(self._part(index))
        self.store.discard(self._place(self.table.rows[index]))

    def seal(self, signature: bytes | None = None) -> str:
        """Sync and hash the assembled release, write its list (and the list's signature), and
        return its folder.

        Raises:
            DeployError: a file is missing or not what was announced; it is removed, so that the
                next deploy sends it again.
        """
        for name in (deployed.RELEASE, deployed.SIGNED):
            self.store.discard(os.path.join(self.tree, name))
        check_tree(self.tree, self.table)
        for row in self.table.rows:
            path = self._place(row)
            # Synced before it is read back, so that a fault of the medium shows here.
            if os.path.lexists(path):
                self.disk.sync_file(path)
            try:
                check_file(path, row, self.store.tick)
            except DeployError:
                self.store.discard(path)
                raise
        self.store.write_file(os.path.join(self.tree, deployed.RELEASE), self.table.text())
        if signature is not None:
            self.store.write_file(os.path.join(self.tree, deployed.SIGNED), signature)
        folders = [name for name, is_folder in walk(self.tree) if is_folder]
        for name in reversed(folders):
            self.disk.sync_folder(os.path.join(self.tree, name))
        self.disk.sync_folder(self.tree)
        return self.tree

    def install(self) -> str:
        """Rename the sealed release into ``releases`` and return its name there."""
        name, copy = self.table.name, 1
        while os.path.lexists(self.store.release(name)):  # a damaged one, or it had been used
            copy += 1
            name = f"{self.table.name}.{copy}"
        self.disk.rename(self.tree, self.store.release(name))
        self.disk.sync_folder(self.store.path(deployed.RELEASES))
        self.disk.sync_folder(self.folder)
        self.store.discard(self.folder)
        return name

    def _distrust(self) -> None:
        """Remove from an earlier assembly all that is not a plain file or folder."""
        if not os.path.lexists(self.folder):
            return
        for name, is_folder in walk(self.folder, strict=False):
            path = os.path.join(self.folder, name)
            status = os.lstat(path)
            if not is_folder and not (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
                self.store.warnings.append(f"{path} was a link or no plain file and was removed")
                self.disk.unlink(path)

    def _make_folders(self, inside: str) -> None:
        made = self.tree
        for part in inside.split("/") if inside else ():
            made = os.path.join(made, part)
            if os.path.lexists(made) and not stat.S_ISDIR(os.lstat(made).st_mode):
                self.disk.unlink(made)
            if not os.path.lexists(made):
                self.disk.mkdir(made)

    def _places(self) -> dict[str, list[str]]:
        """Where each content (by SHA-256) should lie in the installed releases."""
        places: dict[str, list[str]] = {}
        for name in self.store.releases():
            table = self.store.table(name)
            for row in table.rows if table else ():
                path = os.path.join(self.store.release(name), row.path)
                places.setdefault(row.sha256, []).append(path)
        return places

    def _own_maps(self, row: Row) -> list[str]:
        """Where a map may lie that the board wrote itself, so that no list names its content."""
        if row.path != deployed.MAP:
            return []
        paths = [os.path.join(self.store.release(name), row.path) for name in self.store.releases()]
        return [path for path in paths if os.path.isfile(path)]

    def _staged(self, row: Row) -> bool:
        path = self._place(row)
        if not os.path.lexists(path):
            return False
        try:
            check_file(path, row, self.store.tick)
        except DeployError:
            self.store.discard(path)
            return False
        return True

    def _copied(self, row: Row, places: list[str]) -> bool:
        """Whether ``row`` could be copied from an installed release, its hash checked. (Copied, not
        linked: a file with two names could be altered through the other one.)"""
        target = self._place(row)
        for place in places:
            with contextlib.suppress(DeployError):  # the other release lost it
                if self.store.copy(place, target, row.executable) == row.sha256:
                    return True
            self.store.discard(target)
        return False

    def _check_space(self, missing: list[int]) -> None:
        parts = [self._part(index) for index in missing]
        here = sum(os.path.getsize(part) for part in parts if os.path.isfile(part))
        wanted = sum(self.table.rows[i].bytes for i in missing) - here + _SPARE_BYTES
        disk = os.statvfs(self.store.root)
        free = disk.f_bavail * disk.f_frsize
        if wanted > free:
            raise DeployError(
                f"the board's disk is too full: {wanted / 1e6:.1f} MB are needed below "
                f"{self.store.root}, {free / 1e6:.1f} MB are free: free some, or keep fewer "
                "releases with --keep"
            )
        if disk.f_files and len(missing) + 16 > disk.f_favail:
            raise DeployError(
                f"the board's disk has no room for {len(missing)} more files: remove some"
            )
