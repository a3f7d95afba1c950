"""Paths on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tatvpr_edge.spec.targets import check_replaced


class FilePath(click.Path):
    """A path, ``~`` expanded: bash leaves it alone in ``--output=~/floor.placemap``, and whatever
    starts programs without a shell does so everywhere."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)


class OutputFile(FilePath):
    """A file to write, whose name and folder are looked at before the work that it is to hold."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)
        check_replaced(path, self._suffixes)
        return path
