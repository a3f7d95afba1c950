"""How a board is called, in what is said of it."""

from __future__ import annotations

#: In place of a board's address: this machine.
LOCAL = "local:"


def lead(board: str) -> str:
    """``BOARD:``, which a line about a board begins with. ``local:`` has its colon already, which
    is no reason to take one from an address that ends with two, as ``fd00::`` does."""
    return board if board == LOCAL else f"{board}:"
