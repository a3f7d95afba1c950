"""Text of others, before a person or a program of ours believes it.

Tags of a map, names of files, and everything that a board says are somebody else's bytes: an escape
sequence among them would move the terminal's cursor, rename its window or hide a line.
"""

from __future__ import annotations

import json
import math
from typing import Any


def printable(text: object) -> str:
    """``text`` on one line, every character that a terminal could obey written as its escape:
    control and formatting characters (among them those that turn the direction of writing), line
    separators, and halves of surrogate pairs, which no terminal takes."""
    given = str(text)
    if given.isprintable():
        return given
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in given)


def _escaped(letter: str) -> str:
    return (
        letter.encode("ascii", "backslashreplace").decode("ascii")
        if ord(letter) > 127
        else ({"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(letter) or f"\\x{ord(letter):02x}")
    )


#: Digits of the largest whole number that any of our files holds; a longer one would overflow
#: wherever it is used.
_MAX_DIGITS = 20


def parse_json(data: str | bytes) -> Any:
    """What JSON of others says, in the one way in which every reader takes it.

    Raises:
        ValueError: it is none, nests too deeply, gives a key twice, or holds a number that has no
            place in JSON (NaN, an infinity, ``1e999``, a whole number of absurd size).
    """
    try:
        return json.loads(
            data,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_number,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):  # it could be read, and never be written as JSON again
        raise ValueError(f"{digits[:_MAX_DIGITS]} is larger than a number can be")
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def without_nan(value: Any) -> Any:
    """``value`` as JSON holds it: NaN and infinities have no place there and become null."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
