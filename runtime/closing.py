"""What is used in a ``with`` block and closed at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_T = TypeVar("_T", bound="Closing")


class Closing(ABC):
    """``with it: ...`` closes it."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
