"""GeM: the generalised mean with p = 3 over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx

from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.steps.base import Arguments, Found, Step, advance
from tatvpr_edge.compilers.steps.c_text import c_float
from tatvpr_edge.compilers.steps.pattern import Pattern

_POWER = 3.0


@dataclass(frozen=True, eq=False)
class Gem(Step):
    """Over the rows from ``first_row`` on: [T, D] -> [D], or [1, D].

    A second input [T, 1] holds the weights of the rows' cubes, where ``weighted``.
    """

    clamp: float
    first_row: int = 0
    keep_dims: bool = False
    weighted: bool = False

    anchors: ClassVar = ("Clip", "Max")
    head: ClassVar = "gem"

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """Clip below -> Pow 3 [-> Mul with weights] -> mean over rows -> Pow 1/3, over rows from a
        slice on."""
        cube = pattern.sole_consumer(node, "Pow")
        times = pattern.sole_consumer(cube, "Mul")
        mean = pattern.sole_consumer(cube if times is None else times, "ReduceMean")
        root = pattern.sole_consumer(mean, "Pow")
        if cube is None or mean is None or root is None:
            return None
        floor = _floor(pattern, node)
        x = next((name for name in node.input if name not in pattern.graph.constants), "")
        if not x or pattern.rank(x) != 2 or pattern.reduced_axes(mean) != [0]:
            return None
        pairs = ((x, cube.output[0]), (mean.output[0], root.output[0]))
        same = all(pattern.type(one) == pattern.type(other) for one, other in pairs)
        powers = (pattern.scalar(cube.input[1]), pattern.scalar(root.input[1]))
        third = np.float32(1.0 / _POWER)
        if floor is None or not same or powers != (_POWER, float(third)):
            return None
        parts, inputs, first_row = [node, cube, mean, root], [x], 0
        before = pattern.sole_producer(x)
        span = pattern.row_slice(before)
        if before is not None and span is not None and span[1] is None:
            first_row, inputs[0] = span[0], before.input[0]
            parts.insert(0, before)
        if times is not None:
            weights = _weights(pattern, times, cube, first_row)
            if weights is None:
                return None
            inputs.append(weights[0])
            parts[-2:-2] = [*weights[1], times]
        keep = bool(attribute(mean, "keepdims", 1))
        step = cls(pattern.name(root), floor, first_row, keep, times is not None)
        return Found(step, tuple(parts), tuple(inputs), (root.output[0],))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """One row."""
        width = inputs[0][1]
        return [[1, width] if self.keep_dims else [width]]

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_gem``."""
        x = advance(args.inputs[0], self.first_row, args.width)
        weights = advance(args.inputs[1], self.first_row, 1) if self.weighted else "NULL"
        rows = f"{args.rows} - {self.first_row}" if self.first_row else args.rows
        clamp = c_float(self.clamp)
        return f"tatvpr_op_gem(c, {x}, {weights}, {rows}, {args.width}, {clamp}, {args.outputs[0]})"


def _weights(
    pattern: Pattern, times: onnx.NodeProto, cube: onnx.NodeProto, first_row: int
) -> tuple[str, list[onnx.NodeProto]] | None:
    """What the rows' cubes are multiplied by, [T, 1], and the slice of the same rows before it;
    None where it is no column of numbers above 0, one for each row."""
    name = next((n for n in times.input if n != cube.output[0]), "")
    rows = pattern.type(cube.output[0]).shape[0]
    if not name or pattern.type(name).shape != (rows, 1):
        return None
    sliced: list[onnx.NodeProto] = []
    before = pattern.sole_producer(name)
    if first_row and before is not None and pattern.row_slice(before) == (first_row, None):
        sliced, name = [before], before.input[0]
    elif first_row:
        return None
    origin = pattern.graph.kept_constant(name)
    if origin is None:
        return None
    table = pattern.graph.constants[origin]
    column = table.ndim == 2 and table.shape[1] == 1 and table.dtype == np.float32
    return (name, sliced) if column and bool((table > 0).all()) else None


def _floor(pattern: Pattern, node: onnx.NodeProto) -> float | None:
    """The lower bound of a Clip or Max that has nothing else."""
    if node.op_type == "Max":
        bounds = [pattern.scalar(n) for n in node.input if n in pattern.graph.constants]
        return bounds[0] if len(node.input) == 2 and len(bounds) == 1 else None
    upper = len(node.input) > 2 and bool(node.input[2])
    return None if upper or len(node.input) < 2 else pattern.scalar(node.input[1])
