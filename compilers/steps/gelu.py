"""A GELU that no gate follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx

from tatvpr_edge.compilers.steps.base import Arguments, Found, Step
from tatvpr_edge.compilers.steps.gated_linear import is_exact_gelu
from tatvpr_edge.compilers.steps.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Gelu(Step):
    """Exact GELU, element by element."""

    anchors: ClassVar = ("Gelu",)
    alone: ClassVar = True

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """Any exact GELU."""
        if not is_exact_gelu(node):
            return None
        return Found(cls(pattern.name(node)), (node,), (node.input[0],), (node.output[0],))

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_gelu``."""
        count = " * ".join(map(str, args.input_shapes[0])) or "1"
        return f"tatvpr_op_gelu(c, {args.inputs[0]}, {count}, {args.outputs[0]})"
