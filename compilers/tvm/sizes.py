"""Sizes that depend on the token count: as C text, and their largest value."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from tatvpr_edge.spec.errors import ModelError

_SIGNS = {tirx.Add: "+", tirx.Sub: "-", tirx.Mul: "*", tirx.FloorDiv: "/"}


def c_expression(value: Any) -> str:
    """An integer expression as C text, its variables under their own names.

    Raises:
        ModelError: an expression of a kind that shapes of place models do not have.
    """
    if isinstance(value, tirx.IntImm):
        return str(int(value))
    if isinstance(value, tirx.Var):
        return str(value.name)
    for kind, sign in _SIGNS.items():
        if isinstance(value, kind):
            return f"({c_expression(value.a)} {sign} {c_expression(value.b)})"
    raise ModelError(f"a shape is the expression {value}, which is not lowered")


def dimension(value: Any) -> int | str:
    """A number where it is one, else C text."""
    return int(value) if isinstance(value, tirx.IntImm) else c_expression(value)


def largest(value: Any, bounds: dict[str, int]) -> int:
    """The value with every variable at its bound (shapes grow with the token count)."""
    if isinstance(value, tirx.IntImm):
        return int(value)
    if isinstance(value, tirx.Var):
        if value.name not in bounds:
            raise ModelError(f"a shape depends on {value.name!r}, which nothing defines")
        return bounds[value.name]
    for kind, sign in _SIGNS.items():
        if isinstance(value, kind):
            a, b = largest(value.a, bounds), largest(value.b, bounds)
            return {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a // b
    raise ModelError(f"a shape is the expression {value}, which is not lowered")


def variables(value: Any) -> list[Any]:
    """The variables of an expression, in order of appearance."""
    if isinstance(value, tirx.Var):
        return [value]
    if type(value) in _SIGNS:
        return [*variables(value.a), *variables(value.b)]
    return []
