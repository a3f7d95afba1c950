"""Whether an installed release is what was sent: its list, every file, and nothing else.

In: a release's folder. Out: its list, or one error naming the file. Used by the board's half of
deploy (it travels with the agent) and by whoever starts a release; standard library only. Files are
opened once, links and files with a second name are refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator

from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.text import parse_json

from . import deployed
from .table import Row, Table, parse_table

CHUNK = 1 << 20
#: Letters of a path inside a release beyond which no list names anything.
MOST_NAME = 512
_MAX_LIST_BYTES = 16 << 20
#: Where Python keeps what it compiled: it runs in place of a module's text.
BYTECODE = "__pycache__"
#: Beside its files a release may hold the places that the board added to its map, the lock of their
#: writer, and what a killed writer left. Nothing else: compiled Python would run unseen.
_ADDED = (deployed.MAP + ".", "." + deployed.MAP + ".")


def read_table(folder: str) -> Table:
    """The list of the release in ``folder``.

    Raises:
        DeployError: it is missing, damaged, or another release's.
    """
    return table_of(read_list(folder), os.path.basename(folder))


def read_list(folder: str) -> bytes:
    """The bytes of a release's list, opened and read once.

    Raises:
        DeployError: it is missing, no plain file, or too large to be ours.
    """
    return read_plain(os.path.join(folder, deployed.RELEASE), deployed.RELEASE, _MAX_LIST_BYTES)


def table_of(data: bytes, name: str) -> Table:
    """The list ``data`` of the release called ``name``.

    Raises:
        DeployError: it is damaged, or another release's.
    """
    try:
        table = parse_table(parse_json(data))
    except (ValueError, RecursionError):
        raise DeployError(f"{deployed.RELEASE} is damaged") from None
    # The name holds the list's hash; ".2" and so on is a repaired copy of the same release.
    if name != table.name and not name.startswith(table.name + "."):
        raise DeployError(f"{deployed.RELEASE} is damaged, or of another release than {name}")
    return table


def check_files(
    folder: str,
    table: Table,
    tick: Callable[[], None] = lambda: None,
    skip: Callable[[str], bool] = lambda path: False,
    bytecode: bool = False,
) -> None:
    """Every file of ``table`` lies in ``folder`` as it was sent, and nothing else does.

    Args:
        tick: called between pieces of long work; it may raise to stop it.
        skip: paths whose content somebody else checks.
        bytecode: ``__pycache__``, which Python makes where it is let, is nothing to refuse.

    Raises:
        DeployError: by name of the file.
    """
    check_tree(folder, table, added=True, bytecode=bytecode)
    for row in table.rows:
        if not skip(row.path):
            check_file(os.path.join(folder, row.path), row, tick)


def check_tree(folder: str, table: Table, added: bool = False, bytecode: bool = False) -> None:
    """Nothing lies in ``folder`` but what ``table`` lists; ``added``: and what a board adds to its
    map; ``bytecode``: and what Python compiled.

    Raises:
        DeployError: by name of what does.
    """
    files = {row.path for row in table.rows} | {deployed.RELEASE, deployed.SIGNED}
    folders = {path[:i] for path in files for i, letter in enumerate(path) if letter == "/"}
    for name, is_folder in walk(folder):
        if name in (folders if is_folder else files):
            continue
        if added and not is_folder and name.startswith(_ADDED):
            continue
        if bytecode and BYTECODE in name.split("/"):
            continue
        raise DeployError(f"{name!r} is in the release and not in its list")


def check_file(path: str, row: Row, tick: Callable[[], None] = lambda: None) -> None:
    """The file at ``path`` is the one of ``row``.

    Raises:
        DeployError: it is missing, no plain file with one name, or its content differs.
    """
    size, digest = hash_file(path, tick, row.path)
    if size != row.bytes or digest != row.sha256:
        raise DeployError(f"{row.path} is not what was sent: its SHA-256 or size differs")


def walk(folder: str, inside: str = "", strict: bool = True) -> Iterator[tuple[str, bool]]:
    """(relative path, whether a folder) of everything below ``folder``, parents first.

    ``strict``: links, devices, files with a second name, folders deeper than any list names and
    those that cannot be read are refused; else what lies in such a folder is left out.
    """
    if len(inside) > MOST_NAME:
        if strict:
            raise DeployError(f"{inside[:40]!r}... nests too deeply: refused")
        return
    try:
        names = sorted(os.listdir(os.path.join(folder, inside) if inside else folder))
    except OSError as error:
        if strict:
            raise DeployError(f"{inside or folder!r} cannot be read: {error.strerror}") from None
        return
    for name in names:
        relative = inside + "/" + name if inside else name
        try:
            status = os.lstat(os.path.join(folder, relative))
        except OSError as error:
            if strict and error.errno != errno.ENOENT:  # what a map's writer is done with goes
                raise DeployError(f"{relative!r} cannot be read: {error.strerror}") from None
            continue
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


def read(descriptor: int, name: str) -> bytes:
    """The next bytes of an open file, which errors call ``name``; b"" at its end.

    Raises:
        DeployError: the medium no longer gives them (a bad block), as good as damaged.
    """
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        raise DeployError(f"{name} cannot be read: {error.strerror}") from None


def hash_file(
    path: str, tick: Callable[[], None] = lambda: None, name: str = ""
) -> tuple[int, str]:
    """(size, lower-case hex SHA-256) of a plain file, called ``name`` in errors."""
    size, digest = 0, hashlib.sha256()
    with plain(path, name) as descriptor:
        while chunk := read(descriptor, name or os.path.basename(path)):
            size += len(chunk)
            digest.update(chunk)
            tick()
    return size, digest.hexdigest()


def read_plain(path: str, name: str, most: int) -> bytes:
    """The bytes of a plain file of at most ``most`` bytes, called ``name`` in errors, opened once.

    Raises:
        DeployError: it is missing, no plain file with one name, or larger.
    """
    data = bytearray()
    with plain(path, name) as descriptor:
        while chunk := read(descriptor, name):
            data += chunk
            if len(data) > most:
                raise DeployError(f"{name} is larger than {most} bytes: it is not ours")
    return bytes(data)
