"""LayerNorm as the core knows it: part of gated linears, and a step where no gate follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx

from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.steps.base import F32, Arguments, Found, Step
from tatvpr_edge.compilers.steps.c_text import Descriptors, c_float
from tatvpr_edge.compilers.steps.pattern import Pattern
from tatvpr_edge.spec.reference import LAYER_NORM_EPS


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm over the last axis."""

    name: str
    gamma: F32  # [D]
    beta: F32  # [D]
    eps: float

    def declare(self, key: str, out: Descriptors) -> None:
        """Its descriptor."""
        fields = [
            f".gamma = {out.blob.add(self.gamma)}u",
            f".beta = {out.blob.add(self.beta)}u",
            f".eps = {c_float(self.eps)}",
        ]
        out.line("norm", key, fields)


def read_norm(pattern: Pattern, node: onnx.NodeProto | None) -> Norm | None:
    """The LayerNorm at ``node``, or None where it is of another kind."""
    if node is None or node.op_type != "LayerNormalization":
        return None
    x = pattern.type(node.input[0])
    constants = pattern.graph.constants
    axis = attribute(node, "axis", -1)
    plain = len(node.output) == 1 or not any(o in pattern.consumers for o in node.output[1:])
    constant = all(name in constants for name in node.input[1:] if name)
    if len(x.shape) != 2 or axis not in (-1, 1) or not plain or not constant:
        return None
    gamma = constants[node.input[1]]
    with_beta = len(node.input) > 2 and bool(node.input[2])
    beta = constants[node.input[2]] if with_beta else np.zeros(x.width, dtype=np.float32)
    if gamma.shape != (x.width,) or beta.shape != (x.width,):
        return None
    eps = float(attribute(node, "epsilon", LAYER_NORM_EPS * 10))  # ONNX's default is 1e-5
    return Norm(pattern.name(node), gamma, beta, eps)


@dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    """A LayerNorm that no gate follows: [T, D] -> [T, D]."""

    norm: Norm

    anchors: ClassVar = ("LayerNormalization",)
    alone: ClassVar = True

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """Any of the core's kind."""
        norm = read_norm(pattern, node)
        if norm is None:
            return None
        return Found(cls(norm.name, norm), (node,), (node.input[0],), (node.output[0],))

    def declare(self, key: str, out: Descriptors) -> None:
        """``tatvpr_norm``."""
        self.norm.declare(key, out)

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_layer_norm``."""
        x, y = args.inputs[0], args.outputs[0]
        return f"tatvpr_op_layer_norm(c, &{key}, {x}, {args.rows}, {args.width}, {y})"
