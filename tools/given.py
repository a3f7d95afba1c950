"""What tools are given, as types for argparse: what cannot be is told before the work, status 2;
what fails later is a line, and what they found is JSON."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.endings import heeded, interrupted, no_more_output, tell
from tatvpr_edge.spec.errors import TatvprError, UsageError
from tatvpr_edge.spec.targets import PLOTS, check_new_folder, check_replaced
from tatvpr_edge.spec.text import printable, without_nan

_Number = TypeVar("_Number", int, float)


def tool_parser(doc: str | None) -> argparse.ArgumentParser:
    """A tool's parser, described by the first line of its page."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


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
        return _checked(text, lambda path: check_replaced(path, suffixes))

    return path


def new_folder(text: str) -> Path:
    """A folder of results, made if missing."""
    return _checked(text, check_new_folder)


def told_apart(models: Iterable[str]) -> list[str]:
    """Names and files of models, of which figures go by the last word.

    Raises:
        UsageError: two have one.
    """
    by_stem: dict[str, str] = {}
    for model in models:
        other = by_stem.setdefault(Path(model).stem, model)
        if other != model:
            raise UsageError(f"{other} and {model} would be one row: give one another name")
    return list(by_stem.values())


def plot(text: str) -> Path:
    """A picture to write; what draws it is installed."""
    from tatvpr_edge.models.evaluate.plot import need_matplotlib

    need_matplotlib()
    return target(*PLOTS)(text)


def one_line(main: Callable[..., int | None]) -> Callable[..., int]:
    """``main`` with its exit status: 1, after one line on standard error, where it fails, and 128
    and its number where a signal ended it (130: Ctrl-C)."""

    @functools.wraps(main)
    def run(*words: Any) -> int:
        try:
            with heeded():
                status = main(*words) or 0
                sys.stdout.flush()
                return status
        except KeyboardInterrupt:
            said, status = interrupted()
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("tatvpr_edge."):
                raise
            from tatvpr_edge.cli.app import lacking_package

            said, status = f"this tool needs {lacking_package(error)}", 1
        except subprocess.CalledProcessError as error:
            last = str(error.stderr or error.stdout or "").strip().splitlines()[-1:]
            said, status = ": ".join([f"{error.cmd[0]} ended with {error.returncode}", *last]), 1
        except (TatvprError, OSError, subprocess.TimeoutExpired) as error:
            said, status = str(error), 1
        tell(f"error: {printable(said)}")
        try:
            sys.stdout.flush()
        except OSError:  # as the process ends, it would be tried and told again
            no_more_output(1)
        return status

    return run


def write_json(path: Path, document: Any) -> None:
    """``document`` at ``path``, whole or not at all."""
    write_text(path, as_json(document) + "\n")


def write_text(path: Path, text: str) -> None:
    """``text`` at ``path``, whole or not at all."""
    with replacing(path) as sink:
        sink.write(text.encode())


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
