"""A TOML table whose keys are read one by one, each with its type and range checked.

Every fault is one BoardError that names the file, the key and the remedy. `finish` refuses what
nobody asked for, so that a misspelt key is an error and never silently ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from tatvpr_edge.spec.errors import BoardError

_TYPE_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}
_MISSING = object()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ": did you mean ...?" with near matches, or else the list of what is known."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.6)
    if near:
        return f": did you mean {' or '.join(near)}?"
    return f": known are {', '.join(choices)}" if choices else ""


class Table:
    """One table of a TOML file. `where` names it in errors: "cpu", "memory[2]"; "" is the top."""

    def __init__(self, values: dict[str, Any], file: str, where: str = "") -> None:
        self._values, self._file, self._where = values, file, where
        self._asked: set[str] = set()

    def fault(self, key: str, problem: str) -> BoardError:
        """Return the error for `key`, to be raised by the caller."""
        path = f"{self._where}.{key}" if self._where else key
        named = path if path.isprintable() else repr(path)
        return BoardError(f"{self._file}: {named}: {problem}")

    def has(self, key: str) -> bool:
        """Tell whether the table holds `key`; from now on it is a known one."""
        self._asked.add(key)
        return key in self._values

    def text(self, key: str, pattern: str = r"[^\x00-\x1f\x7f]+", hint: str = "one line") -> str:
        """Return a string that matches `pattern` as a whole; `hint` says so in words."""
        value: str = self._typed(key, str)
        if not (value.isprintable() and re.fullmatch(pattern, value)):
            raise self.fault(key, f"{value!r} is not valid: write {hint}")
        return value

    def choice(self, key: str, known: Iterable[str]) -> str:
        """Return a string out of `known`."""
        value: str = self._typed(key, str)
        if value not in known:
            raise self.fault(key, f"unknown value {value!r}{did_you_mean(value, known)}")
        return value

    def optional_text(self, key: str, pattern: str, hint: str) -> str | None:
        """Return `text`, or None where the key is absent."""
        return self.text(key, pattern, hint) if self.has(key) else None

    def integer(self, key: str, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        value: int = self._typed(key, int)
        if not low <= value <= high:
            raise self.fault(key, f"{value} is out of range: write {low} to {high}")
        return value

    def texts(
        self, key: str, pattern: str, hint: str, known: Iterable[str] | None = None
    ) -> tuple[str, ...]:
        """Return a list of different strings that each match `pattern`, and are out of `known`."""
        values: list[Any] = self._typed(key, list)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise self.fault(f"{key}[{index}]", f"{_say(value)} where a string belongs")
            if not (value.isprintable() and re.fullmatch(pattern, value)):
                raise self.fault(f"{key}[{index}]", f"{value!r} is not valid: write {hint}")
            if known is not None and value not in known:
                fault = f"unknown value {value!r}{did_you_mean(value, known)}"
                raise self.fault(f"{key}[{index}]", fault)
            if value in values[:index]:
                raise self.fault(f"{key}[{index}]", f"{value!r} stands there twice: remove one")
        return tuple(values)

    def table(self, key: str) -> Table:
        """Return the table under `key`."""
        return self._inner(self._typed(key, dict), key)

    def optional_table(self, key: str) -> Table | None:
        """Return `table`, or None where the key is absent."""
        return self.table(key) if self.has(key) else None

    def tables(self, key: str) -> list[Table]:
        """Return the tables of an array of tables; none where the key is absent."""
        if not self.has(key):
            return []
        values: list[Any] = self._typed(key, list)
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                remedy = f"write each as a table, [[{key}]]"
                raise self.fault(
                    f"{key}[{index}]", f"{_say(value)} where a table belongs: {remedy}"
                )
        return [self._inner(value, f"{key}[{index}]") for index, value in enumerate(values)]

    def finish(self) -> None:
        """Refuse keys that were never asked for."""
        for key in self._values:
            if key not in self._asked:
                raise self.fault(key, f"unknown key{did_you_mean(key, self._asked)}")

    def _inner(self, values: dict[str, Any], key: str) -> Table:
        return Table(values, self._file, f"{self._where}.{key}" if self._where else key)

    def _typed(self, key: str, kind: type) -> Any:
        self._asked.add(key)
        value = self._values.get(key, _MISSING)
        if value is _MISSING:
            raise self.fault(key, f"missing: add it as {_TYPE_NAMES[kind]}")
        if type(value) is not kind:  # not isinstance: True is no integer here
            raise self.fault(key, f"{_say(value)} where {_TYPE_NAMES[kind]} belongs")
        return value


def _say(value: object) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)
