"""What may be set of a ``Localizer`` at any time: k, tokens, and what the governor holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tatvpr_edge.runtime.closing import Closing
from tatvpr_edge.runtime.dials import Dials

if TYPE_CHECKING:
    from tatvpr_edge.runtime.governor import Budget, Governor


class Settings(Closing):
    """The settings of a :class:`~tatvpr_edge.runtime.Localizer`, which keeps them in its dials."""

    _dials: Dials

    @property
    def k(self) -> float | str:
        """Fraction kept, or "auto"."""
        return self._dials.k

    @k.setter
    def k(self, value: float | str) -> None:
        self._dials.turn(k=value)

    @property
    def tokens(self) -> float:
        """Fraction of patch tokens kept while k is a number; "auto" chooses its own."""
        return self._dials.tokens

    @tokens.setter
    def tokens(self, value: float) -> None:
        self._dials.turn(tokens=value)

    @property
    def budget(self) -> Budget | None:
        """What the governor holds while k is "auto"; None: a preset alone decides, or nothing.

        May be set at any time, as a ``Budget`` or in its written form; k stays as it is.

        Raises:
            UsageError: it is not understood, or k is "auto" and neither budget nor preset is left.
        """
        return self._dials.budget

    @budget.setter
    def budget(self, value: Budget | str | None) -> None:
        self._dials.turn(budget=value)

    @property
    def preset(self) -> str | None:
        """How a budget is used, or which end is taken without one; may be set at any time.

        Raises:
            UsageError: another word than "turbo" and "battery-saver".
        """
        return self._dials.preset

    @preset.setter
    def preset(self, value: str | None) -> None:
        self._dials.turn(preset=value)

    @property
    def governor(self) -> Governor | None:
        """What chooses k, and says by ``why()`` for what reason; None where k was not "auto" since
        budget or preset was set."""
        return self._dials.governor
