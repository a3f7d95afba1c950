"""Finished engines: outside the artifact, one folder for each machine and artifact content.

A folder appears by one rename, after its engines were verified, and every byte is hashed again
before TensorRT sees it: a damaged, foreign or unverified engine is never loaded. The cache is
believed only where nobody but its user and root can write, because no signature covers an engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime.backends.tensorrt.machine import Machine
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.runtime.private import NotPrivate, check_folder, read_private
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.atomic import sync_folder
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.sealed import Sealed, seal
from tatvpr_edge.spec.text import parse_json

MARK = "verified.json"
PLUGIN = "libtatvpr_plugin.so"
_FORMAT = 1
_MOST_BYTES = 1 << 32  # of one engine: what a board's memory holds is far less


@dataclass(frozen=True)
class Entry:
    """A finished engine. ``hashes``: file name -> SHA-256."""

    folder: Path
    hashes: dict[str, str]

    def read(self, name: str) -> bytes | None:
        """The bytes of one file, opened once and hashed as they came; None where they are missing,
        others may write them, or they are not those that were verified."""
        try:
            data = read_private(self.folder / name, most=_MOST_BYTES)
        except (OSError, NotPrivate):
            return None
        return data if hashlib.sha256(data).hexdigest() == self.hashes.get(name) else None

    def plugin(self) -> Sealed | None:
        """A sealed copy of the compiled plugin, or None where the Python one was used.

        Raises:
            ToolError: it is missing or not the one that was verified.
        """
        if PLUGIN not in self.hashes:
            return None
        data = self.read(PLUGIN)
        if data is None:
            raise ToolError(f"the plugin in {self.folder} is missing or was altered: finish again")
        return seal(PLUGIN, [data])


def content_hash(artifact: Artifact) -> str:
    """What an engine depends on of an artifact: not its measured profile, nor its signature."""
    manifest = artifact.manifest
    document = {
        "model": manifest.model.hash,
        "files": sorted(
            (entry.path, entry.sha256)
            for entry in manifest.files
            if entry.path.startswith(("tensorrt/", "golden/"))
        ),
        "golden": [(p.k, p.tokens, p.path, p.min_cosine) for p in manifest.golden.points],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def entry_key(artifact: Artifact, machine: Machine) -> str:
    """Name of the folder of an artifact's engine on a machine."""
    document = {
        "format": _FORMAT,
        "machine": asdict(machine),
        "content": content_hash(artifact),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:40]


def _root() -> Path:
    """The cache, if it is private.

    Raises:
        ToolError: somebody else can write to it.
    """
    root = cache_folder("tensorrt")
    if os.path.lexists(root):
        try:
            check_folder(root)
        except NotPrivate as error:
            raise ToolError(f"finished engines are not believed: {error}") from None
    return root


def _marks() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every entry and what its mark says, believed or not."""
    for path in _root().glob(f"*/{MARK}"):
        with contextlib.suppress(OSError, NotPrivate, ValueError):
            mark = parse_json(read_private(path))
            if isinstance(mark, dict):
                yield path.parent, mark


def has_any(artifact: Artifact) -> bool:
    """Whether an engine of the artifact was ever finished here, for whatever TensorRT.

    Raises:
        ToolError: as :func:`find`.
    """
    content = content_hash(artifact)
    return any(mark.get("content") == content for _, mark in _marks())


def find(key: str) -> Entry | None:
    """The finished engine of that name, whole and as verified; None where there is none, or one
    that somebody else could have written: it is finished again.

    Raises:
        ToolError: somebody else can write to the cache.
    """
    folder = _root() / key
    try:
        check_folder(folder)
        mark = parse_json(read_private(folder / MARK))
        if mark["format"] != _FORMAT or mark["key"] != key:
            return None
        entry = Entry(folder, {str(n): str(h) for n, h in mark["hashes"].items()})
    except (OSError, NotPrivate, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not entry.hashes or any(entry.read(name) is None for name in entry.hashes):
        return None
    return entry


@contextlib.contextmanager
def locked(key: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the only right to make ``key``; ``on_wait`` is called if another process has it.

    Raises:
        OSError: the cache cannot be written.
    """
    _root().mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(_root() / f"{key}.lock", flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staging(key: str) -> Iterator[Path]:
    """A folder beside the entry's place; whatever is left in it in the end is removed.

    Raises:
        OSError: the cache cannot be written.
    """
    for left in _root().glob(f".{key}.*"):  # of a process that lost its power; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=_root()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(
    folder: Path, key: str, artifact: Artifact, machine: Machine, hashes: dict[str, str]
) -> Entry:
    """Make ``folder`` the entry ``key``; drop this GPU's older ones. ``hashes``: SHA-256 of each of
    its files as they were when they were verified.

    Raises:
        OSError: the disk is full; nothing changed.
    """
    content = content_hash(artifact)
    mark = {
        "format": _FORMAT,
        "key": key,
        "machine": asdict(machine),
        "content": content,
        "hashes": hashes,
    }
    for path in folder.iterdir():  # a builder under umask 002 lets its group write them
        path.chmod(0o600)
    with open(folder / MARK, "w", opener=_own) as sink:
        sink.write(json.dumps(mark, sort_keys=True, indent=1) + "\n")
        sink.flush()
        os.fsync(sink.fileno())
    place = _root() / key
    with contextlib.suppress(OSError):  # not a folder, but a link to one or a file
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)  # damaged, or find() had returned it
    os.rename(folder, place)
    sync_folder(_root())
    _drop_older(key, content, machine)
    return Entry(place, hashes)


def _own(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _drop_older(key: str, content: str, machine: Machine) -> None:
    """Engines of this content and GPU for another TensorRT or driver: disks of boards are small."""
    for folder, mark in _marks():
        with contextlib.suppress(OSError, KeyError, TypeError):
            same = mark["content"] == content and mark["machine"]["gpu"] == machine.gpu
            if same and folder.name != key:
                shutil.rmtree(folder)
