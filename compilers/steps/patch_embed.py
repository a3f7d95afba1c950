"""The 8-bit patch projection: the frame's pixels to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx

from tatvpr_edge.compilers.checks import FRAME
from tatvpr_edge.compilers.steps.base import F32, I8, Arguments, Found, Macs, Step
from tatvpr_edge.compilers.steps.c_text import Descriptors
from tatvpr_edge.compilers.steps.pattern import Pattern


@dataclass(frozen=True, eq=False)
class PatchEmbed(Step):
    """uint8 [S, S, 3] -> [(S/P)^2, D]."""

    image_size: int
    patch: int
    weights: I8  # [D, P*P*3]
    scale: F32  # [D]
    bias: F32  # [D]

    anchors: ClassVar = ("PatchEmbed",)
    traces_itself: ClassVar = True

    @property
    def dim(self) -> int:
        """Output channels D."""
        return int(self.weights.shape[0])

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """The operator of that name."""
        weights, scale, bias = (pattern.graph.constants[name] for name in node.input[1:])
        side = pattern.graph.inputs[FRAME].shape[0]
        assert isinstance(side, int)
        patch = round((weights.shape[1] // 3) ** 0.5)
        step = cls(pattern.name(node), side, patch, weights, scale, bias)
        return Found(step, (node,), (node.input[0],), (node.output[0],))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """One row a patch."""
        side = self.image_size // self.patch
        return [[side * side, self.dim]]

    def declare(self, key: str, out: Descriptors) -> None:
        """``tatvpr_patch_embed``."""
        out.struct(
            "patch_embed",
            key,
            [
                f'.name = "{self.name}"',
                f".image_size = {self.image_size}",
                f".patch = {self.patch}",
                f".dim = {self.dim}",
                f".weight = {out.blob.add(self.weights)}u",
                f".scale = {out.blob.add(self.scale)}u",
                f".bias = {out.blob.add(self.bias)}u",
            ],
        )
        out.play("patch_embed", key)

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_patch_embed``."""
        return f"tatvpr_op_patch_embed(c, &{key}, {args.outputs[0]})"

    def macs(self, rows: int, k: float) -> Macs:
        """Dense, whatever k."""
        return Macs(other=rows * self.weights.size)
