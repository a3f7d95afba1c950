"""Bytes that nobody can change any more: hashed while they were copied, then sealed.

A file that is hashed and then opened again by its name can be another file by then; one that is
mapped can be written to meanwhile. So what is going to run is copied once into memory of the kernel
(``memfd_create``), hashed on the way, sealed against every later write, and loaded from there.
Standard library only, Linux only: nothing that we load runs anywhere else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .atomic import write_all
from .errors import ArtifactError

_CHUNK = 1 << 20
#: Newer kernels ask whether a memfd may be executed by name; loading a library needs no such right.
_NOEXEC_SEAL = 0x0008
_SPELLINGS = itertools.count(1)


@dataclass(frozen=True)
class Sealed:
    """A sealed copy. ``descriptor`` belongs to whoever made it; ``sha256`` is of these bytes."""

    name: str
    descriptor: int
    bytes: int
    sha256: str

    @property
    def path(self) -> str:
        """A name by which this process, and a child that inherits the descriptor, opens it."""
        return f"/proc/self/fd/{self.descriptor}"

    def loaded_as(self) -> str:
        """``path`` for the loader of libraries, spelled anew at each call: the loader gives what it
        knows by a name, and a number is another file's once its descriptor is closed."""
        bits = f"{next(_SPELLINGS):b}"
        spelling = "".join("/." if bit == "1" else "/" for bit in bits)
        return f"/proc/self/fd{spelling}/{self.descriptor}"

    def close(self) -> None:
        """Give the descriptor back; what was mapped or loaded stays."""
        os.close(self.descriptor)


def seal(name: str, chunks: Iterable[bytes]) -> Sealed:
    """A sealed copy of ``chunks``, called ``name`` where Linux lists a process's maps.

    Raises:
        ArtifactError: this system has no memfd.
        OSError: there is no memory for it.
    """
    descriptor = _memfd(name)
    try:
        size, digest = 0, hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            write_all(descriptor, chunk)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return Sealed(name, descriptor, size, digest.hexdigest())


def seal_file(path: str | Path) -> Sealed:
    """A sealed copy of the file at ``path``, read once.

    Raises:
        ArtifactError, OSError: as :func:`seal`, or the file cannot be read.
    """
    with open(path, "rb", buffering=0) as source:
        return seal(os.path.basename(path), iter(lambda: source.read(_CHUNK), b""))


@contextlib.contextmanager
def sealed_bytes(*parts: bytes) -> Iterator[list[Sealed]]:
    """Sealed copies of ``parts`` for as long as the block runs."""
    made: list[Sealed] = []
    try:
        for part in parts:
            made.append(seal("part", [part]))
        yield made
    finally:
        for one in made:
            one.close()


def _memfd(name: str) -> int:
    if not hasattr(os, "memfd_create"):
        raise ArtifactError("this system cannot seal memory (memfd): run it on Linux")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(f"tatvpr:{name}"[:200], flags | _NOEXEC_SEAL)
    except OSError:  # a kernel before 6.3 does not know the flag
        return os.memfd_create(f"tatvpr:{name}"[:200], flags)
