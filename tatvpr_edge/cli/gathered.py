"""Options that several commands have come to each of them as one argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

Command = Callable[..., Any]


def gathered(
    command: Command,
    options: Sequence[Callable[[Command], Command]],
    name: str,
    parts: Sequence[str],
    kind: Callable[..., object],
) -> Command:
    """``command`` with these options, whose values come as one argument.

    Args:
        options: as its help lists them.
        name: of that argument.
        parts: names of the options' values; ``kind`` is called with them.
    """

    @functools.wraps(command)
    def given(*arguments: Any, **others: Any) -> Any:
        value = kind(**{part: others.pop(part) for part in parts})
        return command(*arguments, **{name: value}, **others)

    made: Command = given
    for option in reversed(options):
        made = option(made)
    return made
