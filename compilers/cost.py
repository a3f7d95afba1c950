"""Multiply-accumulates of a frame, per k and tokens: what gating and token dropping save."""

from __future__ import annotations

from dataclasses import dataclass

from tatvpr_edge.compilers import ir
from tatvpr_edge.compilers.graph import Dim
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
    """Count one frame. A gated layer multiplies the kept channels only."""
    counts = {}
    after = matched.max_tokens
    for step in matched.keeps:
        after = counts[step.count] = 1 + kept(tokens, after - 1)

    def number(dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        return counts.get(dim, after - 1)  # else a slice of the last ones without CLS

    linear = attention = other = 0
    types = matched.graph.types
    for node in matched.graph.nodes:
        own = matched.step_of(node)
        result = types[node.output[0]].shape
        if isinstance(own, ir.PatchEmbed):
            other += number(result[0]) * own.weights.size
        elif isinstance(own, ir.Attention):
            attention += 2 * number(result[0]) ** 2 * own.dim
        elif isinstance(own, ir.GatedLinear | ir.Mlp):
            rows = number(result[0])
            linear += rows * sum(_row_macs(part, k) for part in ir.gated_linears([own]))
        elif node.op_type == "MatMul":
            count = number(types[node.input[0]].shape[-1])
            for dim in result:
                count *= number(dim)
            other += count
    return Cost(k, tokens, linear, attention, other)


def _row_macs(gated: ir.GatedLinear, k: float) -> int:
    groups = gated.linear.k_in // gated.gate.group
    return kept(gated.gate.fixed_k or k, groups) * gated.gate.group * gated.linear.n_out
