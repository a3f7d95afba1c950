"""Multiply-accumulates of a frame, per k and tokens: what gating and token dropping save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import onnx

from tatvpr_edge.compilers.graph import Dim, Type, attribute
from tatvpr_edge.compilers.match import Matched
from tatvpr_edge.spec.limits import kept


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one frame at one setting of the dials."""

    k: float
    tokens: float
    linear_macs: int  # of the ternary layers: what k shrinks
    attention_macs: int
    other_macs: int  # patch embedding and what TVM compiles

    @property
    def macs(self) -> int:
        """All of them."""
        return self.linear_macs + self.attention_macs + self.other_macs

    def to_dict(self) -> dict[str, float]:
        """As the manifest holds it."""
        return {"k": self.k, "tokens": self.tokens, "macs": self.macs}


def frame_cost(matched: Matched, k: float, tokens: float = 1.0) -> Cost:
    """Count one frame, step by step; of what TVM compiles, products count."""
    counts = {}
    after = matched.max_tokens
    for symbol in matched.kept_counts:
        after = counts[symbol] = 1 + kept(tokens, after - 1)

    def number(dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        symbol, _, fewer = dim.partition(" - ")  # a slice of rows: see Graph
        return counts.get(symbol, after) - int(fewer or 0)

    linear = attention = other = 0
    types = matched.graph.types
    for node in matched.graph.nodes:
        result = types[node.output[0]].shape
        step = matched.step_of(node)
        if step is not None:
            own = step.macs(number(result[0]) if result else 1, k)
            linear += own.linear
            attention += own.attention
            other += own.other
        elif dims := _product(node, types):
            other += math.prod(map(number, dims))
    return Cost(k, tokens, linear, attention, other)


def _product(node: onnx.NodeProto, types: Mapping[str, Type]) -> tuple[Dim, ...]:
    """What the multiply-accumulates of a standard node are the product of; empty: it has none."""
    shapes = [types[name].shape if name else () for name in node.input]
    result = types[node.output[0]].shape
    if node.op_type in ("MatMul", "Gemm"):
        return (*result, shapes[0][0 if attribute(node, "transA", 0) else -1])
    if node.op_type == "Conv":
        return (*result, *shapes[1][1:])
    if node.op_type == "Einsum":
        terms = attribute(node, "equation").decode().replace(" ", "").partition("->")[0].split(",")
        if "..." not in "".join(terms):
            pairs = [zip(*pair, strict=True) for pair in zip(terms, shapes, strict=True)]
            return tuple(dict(chain(*pairs)).values())
        return result
    return ()
