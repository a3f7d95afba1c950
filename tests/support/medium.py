"""What of a folder is certain to be on the disk, seen from the calls that make it so.

Bytes of a file are certain as of its latest fsync, a folder's names as of the folder's. All else
may be lost with the power: a name that was renamed there, or the contents behind one that stayed;
and what was removed may be back.
"""

from __future__ import annotations

import os
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
        self._names[inode] = {e.name: e.inode() for e in os.scandir(place)}

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
        changed = []
        for place, _, files in os.walk(self._folder):
            certain = self._names.get(os.stat(place).st_ino, {})
            found = {name: os.stat(Path(place, name)).st_ino for name in files}
            back = {name: of for name, of in certain.items() if of in self._bytes}
            after = found if lost == "contents alone" else back
            for name in sorted({*found, *after}):
                path = Path(place, name)
                if name not in after:
                    path.unlink()
                elif found.get(name) != after[name]:
                    path.unlink(missing_ok=True)
                    path.write_bytes(self._bytes[after[name]])
                elif (kept := self._bytes.get(after[name], b"")) != path.read_bytes():
                    path.write_bytes(kept)
                else:
                    continue
                changed.append(path)
        return changed
