"""What tools are given, as types for argparse: what cannot be is told before the work, status 2;
what fails later is a line, and what they found is JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tatvpr_edge.spec.errors import TatvprError
from tatvpr_edge.spec.targets import check_new_folder, check_target
from tatvpr_edge.spec.text import without_nan

_Number = TypeVar("_Number", int, float)


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``."""
    return _number(int, "whole number", least, most)


def real(least: float, most: float) -> Callable[[str], float]:
    """A number from ``least`` to ``most``."""
    return _number(float, "number", least, most)


def listed(one: Callable[[str], _Number]) -> Callable[[str], list[_Number]]:
    """Several of ``one``, with commas between them."""

    def numbers(text: str) -> list[_Number]:
        return [one(part) for part in text.split(",")]

    return numbers


def target(*suffixes: str) -> Callable[[str], Path]:
    """A file to write, called with one of ``suffixes``; its folder is there."""

    def path(text: str) -> Path:
        return _checked(text, lambda path: check_target(path, suffixes))

    return path


def new_folder(text: str) -> Path:
    """A folder of results, made if missing."""
    return _checked(text, check_new_folder)


def run(main: Callable[[], int | None]) -> int:
    """The exit status of ``main``; 1, after one line on standard error, where it fails."""
    try:
        return main() or 0
    except (TatvprError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def as_json(document: Any) -> str:
    """Figures as JSON, in which what is not known (NaN) is null."""
    return json.dumps(without_nan(document), indent=1, allow_nan=False)


def _checked(text: str, check: Callable[[Path], None]) -> Path:
    path = Path(text)
    try:
        check(path)
    except TatvprError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def _number(
    kind: Callable[[str], _Number], name: str, least: _Number, most: _Number
) -> Callable[[str], _Number]:
    def number(text: str) -> _Number:
        try:
            value = kind(text)
            if least <= value <= most:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text} is no {name} from {least} to {most}")

    return number
