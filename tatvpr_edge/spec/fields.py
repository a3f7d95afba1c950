"""Typed access to a JSON document that others wrote: every fault is one line that names the key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from .errors import ArtifactError

#: Entries that a list may have, where its reader says nothing else.
MAX_ITEMS = 10_000


class Fields:
    """A JSON object of the document called ``document``; ``where`` is its place in there."""

    def __init__(self, values: Any, document: str, where: str = "") -> None:
        if not isinstance(values, dict):
            raise ArtifactError(f"{document}: {where or 'the document'} is not an object")
        self._values = values
        self._document = document
        self._where = where + "." if where else ""

    def _take(self, key: str) -> Any:
        if key not in self._values:
            raise ArtifactError(f"{self._document}: {self._where}{key} is missing")
        return self._values[key]

    def _wrong(self, key: str, wanted: str) -> ArtifactError:
        return ArtifactError(f"{self._document}: {self._where}{key} is not {wanted}")

    def text(self, key: str, valid: Callable[[str], Any] = lambda text: True) -> str:
        value = self._take(key)
        if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
            raise self._wrong(key, "a line of text")
        if not valid(value):
            raise self._wrong(key, f"valid: {value[:80]!r}")
        return value

    def integer(self, key: str, low: int, high: int = 2**53) -> int:
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, f"an integer in {low}..{high}")
        return value

    def fraction(self, key: str) -> float:
        value = self._take(key)
        if not is_number(value) or not 0 < value <= 1:
            raise self._wrong(key, "a number in (0, 1]")
        return float(value)

    def number(self, key: str) -> float:
        value = self._take(key)
        if not is_number(value):
            raise self._wrong(key, "a finite number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def items(self, key: str, most: int = MAX_ITEMS) -> list[Any]:
        value = self._take(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(key, f"a list of at most {most}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.items(key)
        if not all(isinstance(item, str) and item.isprintable() for item in value):
            raise self._wrong(key, "a list of names")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def inner(self, key: str) -> Fields:
        return Fields(self._take(key), self._document, self._where + key)

    def each(self, key: str, most: int = MAX_ITEMS) -> Iterable[Fields]:
        for index, item in enumerate(self.items(key, most)):
            yield Fields(item, self._document, f"{self._where}{key}[{index}]")


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
