"""Files and folders that appear whole or not at all, and what killed writers left of them.

A temporary is made beside its place as ``.NAME.????????.tmp`` and its writer holds ``flock`` on it.
What is called so and is not held was left behind by a writer that was killed (or by a power cut),
and the next writer of NAME removes it. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_TOKEN_BYTES = 4
_SUFFIX = ".tmp"
_OURS = re.compile(rf"\..+\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}{re.escape(_SUFFIX)}", re.DOTALL)
_AT_FDCWD, _NOREPLACE, _EXCHANGE = -100, 1, 2
_TRIES = 100
#: No link is followed, and a planted pipe is not waited for.
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no file, as that of write(2) on a full disk, or a temporary of ours, or
    a file in one, names ``path``."""
    try:
        yield
    except OSError as error:
        of = error.filename  # open() names a descriptor by its number
        named = Path(os.fsdecode(of)).parts if isinstance(of, str | bytes | os.PathLike) else None
        if named is None or any(map(_OURS.fullmatch, named)):
            error.filename = str(path)
            if error.filename2 is not None:  # None would be printed
                del error.filename2
        raise


@contextlib.contextmanager
def replacing(
    path: Path,
    like: Path | None = None,
    *,
    mode: int | None = None,
    beside: Path | None = None,
    new: bool = False,
) -> Iterator[BinaryIO]:
    """A temporary file that takes the place of ``path`` once it is on the disk.

    It keeps the mode of the file that it replaces (a private map stays private), or of ``like``;
    without either it gets what the process' umask gives to any new file. ``mode`` sets another.

    Args:
        beside: the temporary lies beside this and is named after it; None: beside ``path``.
        new: nothing is replaced.

    Raises:
        FileExistsError: ``new``, and something lies at ``path`` by the time that this would.
        OSError: as write(2); or ``path`` is a device, which root could replace.
    """
    refuse_device(path)
    near = path if beside is None else beside
    sweep(near)
    name, held = _held_file(near, path)
    with naming(path), held as sink:
        try:
            if mode is not None:
                os.fchmod(sink.fileno(), mode)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(sink.fileno(), os.stat(like or path).st_mode & 0o777)
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
            if new:
                put_new(name, path)
            else:
                with _synced(path.parent):
                    os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise


def refuse_device(path: Path) -> None:
    """``--csv /dev/null`` means the device, and a rename as root would leave a file in its place;
    so would one over the link ``/dev/stdout``."""
    try:
        found = os.stat(path).st_mode
    except OSError:
        return  # nothing is there, or what it is will be said by whoever writes
    is_device = stat.S_ISCHR(found) or stat.S_ISBLK(found)
    if is_device or (stat.S_ISFIFO(found) and path.is_symlink()):
        why = "it is a device or a way to a pipe: name a file"
        raise OSError(errno.EEXIST, why, str(path))


def _held_file(near: Path, path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary beside ``near``, open, which holds the lock."""
    while True:
        name = _temporary(near)
        with naming(path), contextlib.ExitStack() as closing:
            held = closing.enter_context(open(name, "x+b"))
            closing.callback(name.unlink, missing_ok=True)  # where nothing can be held, say
            fcntl.flock(held, fcntl.LOCK_EX)
            if os.fstat(held.fileno()).st_nlink:  # else another writer swept it before it was held
                closing.pop_all()
                return name, held


@contextlib.contextmanager
def staging(place: Path) -> Iterator[Path]:
    """A new folder beside ``place``, its owner's only, to be renamed there; what is not goes."""
    sweep(place)
    folder, descriptor = _held_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _held_folder(place: Path) -> tuple[Path, int]:
    """A new temporary beside ``place``, and what holds the lock on it."""
    while True:
        folder = _temporary(place)
        os.mkdir(folder, 0o700)
        with contextlib.ExitStack() as closing:
            closing.callback(_remove_empty, folder)
            try:
                descriptor = os.open(folder, _LOOK)
            except FileNotFoundError:
                continue  # another writer swept it before it was opened
            closing.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():  # else another writer swept it before it was held
                closing.pop_all()
                return folder, descriptor


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another writer swept it
        os.rmdir(folder)


def put_new(made: Path, place: Path) -> None:
    """Put the file or folder ``made`` at ``place``, on the same disk, where nothing lies: one step
    where the file system has it, elsewhere a look and a step.

    Raises:
        FileExistsError: something lies there; of several writers at once the first one's stays.
    """
    with _synced(place.parent):
        if _renamed(made, place, _NOREPLACE):
            return
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
        os.rename(made, place)


def take_place(made: Path, place: Path) -> None:
    """Put the folder ``made`` at ``place``, on the same disk; what was there is at ``made`` then.

    One step where the file system can exchange two names (ext4, xfs, btrfs, tmpfs): whoever looks
    or dies meanwhile has the old folder or the new one. Elsewhere there is a moment without either.
    Of several writers at once the last one's stays.
    """
    with _synced(place.parent):
        for left in reversed(range(_TRIES)):
            try:
                return _put(made, place)
            except OSError as error:
                # Another writer came between the look and the step: its folder is there, or not.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT) or not left:
                    raise


def _put(made: Path, place: Path) -> None:
    if not place.exists():
        os.rename(made, place)
    elif not _renamed(made, place, _EXCHANGE):
        aside = made.with_name(made.name + ".old")
        shutil.rmtree(aside, ignore_errors=True)  # of a try before
        os.rename(place, aside)
        os.rename(made, place)
        os.rename(aside, made)


def _renamed(one: Path, other: Path, flag: int) -> bool:
    """Whether renameat2(2) did it; not where C library, kernel or disk do not have the flag."""
    try:
        import ctypes  # here, because few who write files need it

        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), flag) == 0


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder for temporary files, gone in the end; those of killed processes go first. An error
    that names no file names the folder of all of them, which TMPDIR moves."""
    place = Path(tempfile.gettempdir())
    with naming(place), staging(place / f"tatvpr-{what}") as folder:
        yield folder


def sweep(place: Path) -> None:
    """Remove what killed writers of ``place`` left beside it, as far as it is ours."""
    for left in place.parent.glob(f".{glob.escape(place.name)}.{'?' * 2 * _TOKEN_BYTES}{_SUFFIX}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, _LOOK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid != os.geteuid():
                    continue
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``: the system may take a part at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Put a folder's own entries on the disk, where its file system does that."""
    with _synced(folder):
        pass


@contextlib.contextmanager
def _synced(folder: Path) -> Iterator[None]:
    """The same, of what is done inside; a folder that cannot be opened is told before that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        with naming(folder):
            _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # as folders shared with virtual machines say
            raise


def _temporary(place: Path) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(_TOKEN_BYTES)}{_SUFFIX}")
