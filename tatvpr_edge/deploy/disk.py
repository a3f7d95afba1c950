"""Every change that the board's agent makes to the file system goes through :class:`Disk`.

One narrow place, so that tests can record the calls (and replay a power cut between any two of
them), stop the process at any of them, and read in one file what may be changed at all. Paths are
absolute strings. No call follows a symbolic link in the last component.
"""

from __future__ import annotations

import os

from tatvpr_edge.spec.atomic import write_all

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Disk:
    """The real file system."""

    def mkdir(self, path: str) -> None:
        """Make one folder, readable by all, writable by its owner."""
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # whatever the umask

    def create(self, path: str, executable: bool = False) -> int:
        """A descriptor of a new file; an existing name is an error."""
        descriptor = os.open(path, _CREATE, 0o644)
        os.fchmod(descriptor, 0o755 if executable else 0o644)
        return descriptor

    def reopen(self, path: str, keep: int) -> int:
        """A descriptor of an existing file cut to ``keep`` bytes, at its end."""
        descriptor = os.open(path, _APPEND)
        os.ftruncate(descriptor, keep)
        os.lseek(descriptor, keep, os.SEEK_SET)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        write_all(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Force a file's content to the medium."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor of create or reopen."""
        os.close(descriptor)

    def sync_file(self, path: str) -> None:
        """Force the content of a closed file to the medium."""
        _sync(path, os.O_NOFOLLOW)

    def sync_folder(self, path: str) -> None:
        """Force a folder's names to the medium."""
        _sync(path, os.O_DIRECTORY)

    def rename(self, source: str, target: str) -> None:
        """Rename atomically; a file or link at ``target`` is replaced."""
        os.rename(source, target)

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link at ``path``."""
        os.symlink(target, path)

    def unlink(self, path: str) -> None:
        """Remove a file or link."""
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)


def _sync(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | kind | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
