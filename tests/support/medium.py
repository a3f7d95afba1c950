"""What of a folder is certain to be on the disk, seen from the calls that make it so.

Bytes of a file are certain as of its latest fsync, a folder's names as of the folder's. All else
may be lost with the power: a name that was renamed there, or the contents behind one that stayed;
and what was removed may be back.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

#: What a cut loses of all that was not synced.
CUTS = ("names and contents", "contents alone")


class Medium:
    """Begins with everything below ``folder`` certain, and watches ``os.fsync`` from then on."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}  # by the folder's inode: inodes by name
        self.syncs = 0
        for place, _, files in os.walk(folder):
            self._settle_names(os.stat(place).st_ino, place)
            for name in files:
                path = Path(place, name)
                self._bytes[path.stat().st_ino] = path.read_bytes()
        self._real = os.fsync
        patch.setattr(os, "fsync", self._fsync)

    def _settle_names(self, inode: int, place: str) -> None:
        entries = list(os.scandir(place))
        self._names[inode] = {entry.name: entry.inode() for entry in entries}
        for entry in entries:
            if entry.is_dir():
                self._names.setdefault(entry.inode(), {})

    def _fsync(self, descriptor: int) -> None:
        self._real(descriptor)
        self.syncs += 1
        state, path = os.fstat(descriptor), f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(state.st_mode):
            self._settle_names(state.st_ino, path)
        else:
            self._bytes[state.st_ino] = Path(path).read_bytes()

    def cut(self, lost: str) -> list[Path]:
        """Take from the folder what a power cut would take now, and give what changed by it."""
        names = self._names if lost == "names and contents" else None
        return self._cut(self._folder, os.stat(self._folder).st_ino, names)

    def _cut(self, place: Path, inode: int, names: dict[int, dict[str, int]] | None) -> list[Path]:
        """The same of a folder that was ``inode``; names: those that stay; None: all there are."""
        found = {entry.name: entry.inode() for entry in os.scandir(place)}
        after = found if names is None else names.get(inode, {})
        changed = []
        for name in sorted({*found, *after}):
            path, of = place / name, after.get(name)
            if found.get(name) not in (None, of):
                changed.append(path)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if of is None:
                continue
            if of in self._names or path.is_dir():
                path.mkdir(exist_ok=True)
                changed += self._cut(path, of, names)
            elif not path.exists() or path.read_bytes() != self._bytes.get(of, b""):
                changed.append(path)
                path.write_bytes(self._bytes.get(of, b""))
        return changed
