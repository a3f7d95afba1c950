"""Token dropping: the patch tokens that CLS looks at least leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx

from tatvpr_edge.compilers.graph import KEPT
from tatvpr_edge.compilers.steps.base import Arguments, Found, Step
from tatvpr_edge.compilers.steps.pattern import Pattern

#: Inputs of the rewritten graph that carry the symbols of kept token counts.
KEPT_INPUTS = {symbol: f"{symbol}.rows" for symbol in KEPT}


@dataclass(frozen=True, eq=False)
class KeepTokens(Step):
    """[T, dim], [T] -> [count, dim]; ``count`` is the symbol of what stays."""

    dim: int
    count: str

    anchors: ClassVar = ("KeepTokens",)
    carriers: ClassVar = 1

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """The operator; its fraction is the dial, which the core reads itself."""
        stays = pattern.type(node.output[0])
        step = cls(pattern.name(node), stays.width, str(stays.shape[0]))
        inputs = (*node.input[:2], KEPT_INPUTS[step.count])
        return Found(step, (node,), inputs, tuple(node.output))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """As many rows as the carrier's symbol says."""
        return [[inputs[-1][0], self.dim]]

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_keep_tokens``, which sets the count."""
        x, looked = args.inputs
        return (
            f"tatvpr_op_keep_tokens(c, {x}, {looked}, {args.rows}, {self.dim}, "
            f"{args.outputs[0]}, &{self.count})"
        )

    @property
    def kept_count(self) -> str | None:
        """The symbol."""
        return self.count
