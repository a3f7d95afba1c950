"""Arguments of public calls, held to what they mean: one line names the argument and the remedy.

A value of another type, which Python would only meet deep inside, is told here as a wrong number
is. Needs the standard library alone.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from .errors import UsageError
from .text import printable

_Kind = TypeVar("_Kind")
_LONGEST = 80
#: What Linux takes for one name, and for a path with its end.
_NAME_BYTES, _PATH_BYTES = 255, 4096


def shown(value: Any) -> str:
    """``value`` as a message names it: one short line, whatever it is."""
    shape = getattr(value, "shape", None)
    if shape:  # an array's text goes over many lines
        return f"an array of shape {tuple(shape)}"
    text = printable(repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def wrong(value: Any, name: str, meaning: str) -> UsageError:
    """The error that says what ``name`` is and what it should be."""
    return UsageError(f"{name} is {shown(value)}: {meaning}")


def number(value: Any, name: str, meaning: str) -> float:
    """``value`` as a float, which may be NaN or infinite.

    Raises:
        UsageError: it is no number; ``meaning`` says what would be one.
    """
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong(value, name, meaning) from None


def between(value: Any, least: float, most: float, name: str, meaning: str) -> float:
    """``value`` as a float from ``least`` to ``most``, both included.

    Raises:
        UsageError: it is no such number.
    """
    given = number(value, name, meaning)
    if not least <= given <= most:
        raise wrong(value, name, meaning)
    return given


def above(value: Any, least: float, name: str, meaning: str) -> float:
    """``value`` as a finite float above ``least``.

    Raises:
        UsageError: it is no such number.
    """
    given = number(value, name, meaning)
    if not least < given < math.inf:
        raise wrong(value, name, meaning)
    return given


def whole(value: Any, least: int, name: str, meaning: str, most: int = 2**62) -> int:
    """``value`` as an int from ``least`` to ``most``.

    Raises:
        UsageError: it is no such number.
    """
    try:
        given = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        given = None
    if given is None or not least <= given <= most:
        raise wrong(value, name, meaning)
    return given


def numbers(values: Any, name: str, meaning: str) -> list[float]:
    """A sequence or a flat array of numbers as floats, which may be NaN or infinite.

    Raises:
        UsageError: it is none.
    """
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        return [number(value, name, meaning) for value in values]
    except (TypeError, UsageError):
        raise wrong(values, name, meaning) from None


def choice(value: Any, known: Collection[str], name: str) -> str:
    """``value``, where it is one of ``known``.

    Raises:
        UsageError: it is another.
    """
    if isinstance(value, str) and value in known:
        return value
    raise UsageError(f"{name} {shown(value)} is unknown: choose {' or '.join(known)}")


def flag(value: Any, name: str) -> bool:
    """``value``, where it is a bool: what is merely true may be an argument of another place.

    Raises:
        UsageError: it is none.
    """
    # NumPy's own bool is no bool, and NumPy is not imported here.
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise wrong(value, name, "True or False")


def nameable(text: str) -> bool:
    """Whether a file can be called ``text`` at all: no NUL, no half character, no endless name."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    longest = max(map(len, data.split(b"/")))
    return b"\0" not in data and longest <= _NAME_BYTES and len(data) < _PATH_BYTES


def path(value: Any, name: str, meaning: str = "a path") -> Path:
    """``value`` as a path, ``~`` expanded.

    Raises:
        UsageError: it is no path. An empty one is none: it would mean the working folder.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text.strip() or not nameable(text):
        raise wrong(value, name, meaning)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~somebody
        raise UsageError(f"{name} is {shown(value)}: {error}") from None


def instance(value: Any, kind: type[_Kind], name: str, meaning: str) -> _Kind:
    """``value``, where it is a ``kind``.

    Raises:
        UsageError: it is none; ``meaning`` says how to get one.
    """
    if isinstance(value, kind):
        return value
    raise wrong(value, name, meaning)
