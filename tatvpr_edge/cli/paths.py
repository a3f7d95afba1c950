"""Paths on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tatvpr_edge.spec.errors import DataError


class FilePath(click.Path):
    """A path, ``~`` expanded: bash leaves it alone in ``--output=~/floor.placemap``, and whatever
    starts programs without a shell does so everywhere."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)


class OutputFile(FilePath):
    """A file to write, whose folder is looked at before the work is done that it is to hold."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)
        check_folder(path, path.absolute().parent)
        return path


def check_folder(path: Path, folder: Path) -> None:
    """Refuse to write ``path`` where ``folder`` is none, or nothing can be written into it.

    Raises:
        DataError: it names both.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist: create it first"
        raise DataError(f"cannot write {path}: {folder} {what}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"cannot write {path}: {folder} is not writable")


def check_new_folder(folder: Path) -> None:
    """Refuse a folder of results that cannot be made, or written into where it stands.

    Raises:
        DataError: it names the folder that is in the way.
    """
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    check_folder(folder, above)
