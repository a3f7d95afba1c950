"""Paths on the command line."""

from __future__ import annotations

import os
from typing import Any

import click


class FilePath(click.Path):
    """A path, ``~`` expanded: bash leaves it alone in ``--output=~/floor.placemap``, and whatever
    starts programs without a shell does so everywhere."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)
