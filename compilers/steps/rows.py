"""Rows of a token set whose size is known at run time only: CLS, or the patches.

Heads over patches read such a slice. Most steps of the core take one along by moving a pointer;
this one serves what TVM compiles, which cannot slice an axis of unknown length. Of a set whose
size is known, TVM's own slice is fused with its reader, so those stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx

from tatvpr_edge.compilers.steps.base import Arguments, Found, Step, advance
from tatvpr_edge.compilers.steps.c_text import Descriptors
from tatvpr_edge.compilers.steps.pattern import Pattern

#: A loop, not memcpy: a freestanding build has no <string.h>.
_COPY = """\
/* x [rows, dim] to y; it cannot fail. */
static tatvpr_status copy_rows(const float *x, int32_t rows, int32_t dim, float *y) {
    for (int32_t i = 0; i < rows * dim; i++) y[i] = x[i];
    return TATVPR_OK;
}"""


@dataclass(frozen=True, eq=False)
class Rows(Step):
    """``rows`` rows from ``first_row`` on (None: all that follow): [T, D] -> [rows, D], or [D]."""

    first_row: int
    rows: int | None
    flat: bool = False

    anchors: ClassVar = ("Slice", "Gather")
    alone: ClassVar = True

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """Rows of a set of which the graph does not know how many there are."""
        span = pattern.picked_row(node) or pattern.row_slice(node)
        if span is None or isinstance(pattern.type(node.input[0]).shape[0], int):
            return None
        flat = len(pattern.type(node.output[0]).shape) == 1
        step = cls(pattern.name(node), *span, flat)
        return Found(step, (node,), (node.input[0],), (node.output[0],))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """What is left of the rows."""
        rows, width = inputs[0]
        left = rows - self.first_row if self.rows is None else self.rows
        return [[width] if self.flat else [left, width]]

    def declare(self, key: str, out: Descriptors) -> None:
        """No descriptor: the copy itself."""
        out.function(_COPY)

    def call(self, key: str, args: Arguments) -> str:
        """A copy, which cannot fail."""
        x, y = advance(args.inputs[0], self.first_row, args.width), args.outputs[0]
        rows = self.rows or args.output_shapes[0][0]
        return f"copy_rows({x}, {rows}, {args.width}, {y})"
