"""Lines that people read of commands: what was left out, tables, and words that were not typed.

Apart from ``spec.text``, which travels to a board with every session.
"""

from __future__ import annotations

from collections.abc import Sequence

from tatvpr_edge.spec.text import printable

#: Frames left out that people read of by name: a screen holds them, and what matters above.
MOST_NAMED = 20


def left_out(reasons: Sequence[str], given: int | None = None, after: str = "") -> list[str]:
    """Lines about frames left out: the first ones' reasons, how many more, and of how many in all.

    Args:
        reasons: of each frame, with its name.
        given: how many frames there were; None: unknown, and the last line is not said.
        after: what ends the last line.
    """
    lines = [f"left out: {reason}" for reason in reasons[:MOST_NAMED]]
    if len(reasons) > MOST_NAMED:
        lines.append(f"left out: {len(reasons) - MOST_NAMED} more (--json names all)")
    if reasons and given is not None:
        lines.append(f"left out: {len(reasons)} of {given} frames{after}")
    return lines


def aligned(rows: list[list[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Lines of a plain table, columns two spaces apart, without a terminal's help.

    Args:
        right: indices of the columns that are set to the right.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def empty_argument(arguments: Sequence[str]) -> str | None:
    """What to say where one of the words that a user typed is empty; None where none is.

    An empty path would be the working folder, and an empty value is seldom meant.
    """
    before = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if not word.strip():
            return _empty(before)
        if name.startswith("--") and equals and not value.strip():
            return _empty(name)
        before = word
    return None


def _empty(before: str) -> str:
    after = f" (after {before})" if before else ""
    return f"an argument is empty{after}: is a variable of the shell not set?"
