"""Where a result shall go, looked at before the work is done that it is to hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .errors import DataError, TatvprError, UsageError

#: What pictures of curves are written as.
PLOTS = (".png", ".svg", ".pdf")


def check_target(
    path: Path, suffixes: tuple[str, ...] = (), error: type[TatvprError] = DataError
) -> None:
    """Refuse a file that could not be written at ``path``.

    Raises:
        UsageError: it is called otherwise than with one of ``suffixes``.
        error: its folder is missing, or takes no file; the message names both.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"cannot write {path}: name it with {' or '.join(suffixes)}")
    _check_folder(path, path.absolute().parent, error)


def check_apart(path: Path, read: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse a result that would take the place of what it is made of.

    Raises:
        UsageError: ``path`` is one of ``read``, be it by another name.
    """
    if any(same_file(path, given) for given in read):
        raise UsageError(f"cannot write {path}: it is what shall be read: name another file")


def same_file(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both are one file; of what cannot be looked at, its reader or writer tells."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def check_new_folder(folder: Path) -> None:
    """Refuse a folder of results that cannot be made, or written into where it stands.

    Raises:
        DataError: it names the folder that is in the way.
    """
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    _check_folder(folder, above, DataError)


def _check_folder(path: Path, folder: Path, error: type[TatvprError]) -> None:
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist: create it first"
        raise error(f"cannot write {path}: {folder} {what}")
    try:  # access(2) tells root yes below /proc and /sys, where no file can be made
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        why = fault.strerror
        raise error(f"cannot write {path}: {folder} is not writable ({why})") from None
