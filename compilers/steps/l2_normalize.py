"""A vector at unit length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx

from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.steps.base import Arguments, Found, Step
from tatvpr_edge.compilers.steps.c_text import c_float
from tatvpr_edge.compilers.steps.pattern import Pattern
from tatvpr_edge.spec.reference import L2_EPS


@dataclass(frozen=True, eq=False)
class L2Normalize(Step):
    """[D] -> [D]."""

    eps: float

    anchors: ClassVar = ("LpNormalization",)

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """LpNormalization of one vector with p = 2."""
        if attribute(node, "p", 2) != 2 or len(pattern.type(node.input[0]).shape) != 1:
            return None
        step = cls(pattern.name(node), L2_EPS)
        return Found(step, (node,), (node.input[0],), (node.output[0],))

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_l2_normalize``."""
        x, y = args.inputs[0], args.outputs[0]
        return f"tatvpr_op_l2_normalize(c, {x}, {args.width}, {c_float(self.eps)}, {y})"
