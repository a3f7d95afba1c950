"""Where a result shall go, looked at before the work is done that it is to hold."""

from __future__ import annotations

import os
import tempfile
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
