"""Text of ``model.c`` that steps write: literals, descriptors, and the tables of the program."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tatvpr_edge.compilers.packing import BlobWriter


def c_float(value: float) -> str:
    """A float32 as a C literal that reads back to the same bits."""
    single = np.float32(value)
    if not math.isfinite(single):
        raise ValueError(f"{value} has no C literal")
    text = repr(float(single)) if single == 0 else f"{single:.9g}"
    return f"{text if any(c in text for c in '.en') else text + '.0'}f"


def c_bytes(data: bytes, indent: str) -> str:
    """Bytes as the body of a C initialiser."""
    rows = [data[i : i + 16] for i in range(0, len(data), 16)]
    return "\n".join(indent + " ".join(f"0x{b:02x}," for b in row) for row in rows)


class Descriptors:
    """Collects the descriptors of a model's steps; their weights go into the blob."""

    def __init__(self, blob: BlobWriter) -> None:
        self.blob = blob
        self.declarations: list[str] = []
        #: Pointers for the arrays of ``tatvpr_program``, by the array's name.
        self.tables: dict[str, list[str]] = {"ternaries": [], "mlps": [], "linears": []}
        self._roles: dict[str, tuple[int, str]] = {}

    def function(self, text: str) -> None:
        """A function that calls of a step use, written once."""
        if text not in self.declarations:
            self.declarations.append(text)

    def struct(self, kind: str, key: str, fields: Iterable[str]) -> None:
        """``static const tatvpr_KIND KEY = {FIELDS};``, a field a line."""
        body = ",\n    ".join(fields)
        self.declarations.append(f"static const tatvpr_{kind} {key} = {{\n    {body},\n}};")

    def line(self, kind: str, key: str, fields: Iterable[str]) -> None:
        """The same on one line."""
        self.declarations.append(f"static const tatvpr_{kind} {key} = {{{', '.join(fields)}}};")

    def play(self, role: str, key: str, size: int = 0) -> None:
        """Offer a descriptor for a field of ``tatvpr_program``: the largest one, else the first."""
        if role not in self._roles or size > self._roles[role][0]:
            self._roles[role] = (size, key)

    def player(self, role: str) -> str:
        """The descriptor that got the role."""
        return self._roles[role][1]
