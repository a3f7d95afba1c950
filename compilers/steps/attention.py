"""8-bit self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx

from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.steps.base import Arguments, Found, Macs, Step
from tatvpr_edge.compilers.steps.c_text import Descriptors
from tatvpr_edge.compilers.steps.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Attention(Step):
    """[T, 3 * dim] -> [T, dim], and [T] of what CLS looks at where somebody asks."""

    heads: int
    dim: int

    anchors: ClassVar = ("QuantAttention",)
    traces_itself: ClassVar = True

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """The operator; its second output only where it is read."""
        step = cls(pattern.name(node), attribute(node, "heads"), pattern.type(node.output[0]).width)
        looked = len(node.output) > 1 and node.output[1] in pattern.consumers
        return Found(step, (node,), (node.input[0],), tuple(node.output[: 1 + looked]))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """As many rows as came."""
        return [[inputs[0][0], self.dim], [inputs[0][0]]][:outputs]

    def declare(self, key: str, out: Descriptors) -> None:
        """``tatvpr_attention``; the widest one sizes the scratch."""
        fields = [f'.name = "{self.name}"', f".heads = {self.heads}", f".dim = {self.dim}"]
        out.struct("attention", key, fields)
        out.play("attention", key, self.dim)

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_attention``."""
        y, *rest = args.outputs
        looked = rest[0] if rest else "NULL"
        return f"tatvpr_op_attention(c, &{key}, {args.inputs[0]}, {args.rows}, {y}, {looked})"

    def macs(self, rows: int, k: float) -> Macs:
        """Logits and mix."""
        return Macs(attention=2 * rows**2 * self.dim)

    @property
    def token_dim(self) -> int | None:
        """Its channels are the tokens'."""
        return self.dim
