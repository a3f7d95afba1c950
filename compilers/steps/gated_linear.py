"""A gated ternary layer with what stands around it: GELU and LayerNorm before, a residual after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx

from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.steps.base import F32, I8, Arguments, Found, Macs, Step, advance
from tatvpr_edge.compilers.steps.c_text import Descriptors, c_float
from tatvpr_edge.compilers.steps.norm import Norm, read_norm
from tatvpr_edge.compilers.steps.pattern import Pattern
from tatvpr_edge.spec.limits import kept
from tatvpr_edge.spec.packing import unpack_ternary


@dataclass(frozen=True)
class Gate:
    """TopKGate; ``fixed_k`` above 0 replaces the run-time k."""

    group: int
    scope: int
    fixed_k: float


@dataclass(frozen=True, eq=False)
class Ternary:
    """Weights of one TernaryMatMul, unpacked."""

    name: str
    weights: I8  # [N, K] of -1, 0, +1
    scale: F32  # [1] or [N]
    bias: F32  # [N]

    @property
    def k_in(self) -> int:
        """Input channels K."""
        return int(self.weights.shape[1])

    @property
    def n_out(self) -> int:
        """Output channels N."""
        return int(self.weights.shape[0])


@dataclass(frozen=True, eq=False)
class GatedLinear(Step):
    """[GELU] [LayerNorm] TopKGate, TernaryMatMul, [+ residual].

    It reads ``rows`` rows of its input from ``first_row`` on (``rows`` None: all that follow).
    """

    gelu: bool
    norm: Norm | None
    gate: Gate
    linear: Ternary
    residual: bool = False
    first_row: int = 0
    rows: int | None = None

    anchors: ClassVar = ("TernaryMatMul",)
    traces_itself: ClassVar = True

    @classmethod
    def match(cls, pattern: Pattern, node: onnx.NodeProto) -> Found | None:
        """The matrix product takes its gate along, and what stands before that and behind."""
        gate = pattern.producers[node.input[0]]
        parts = [gate, node]
        x = gate.input[0]
        before = pattern.sole_producer(x)
        norm = read_norm(pattern, before)
        if before is not None and norm is not None:
            parts.append(before)
            x = before.input[0]
            before = pattern.sole_producer(x)
        gelu = before is not None and is_exact_gelu(before)
        if before is not None and gelu:
            parts.append(before)
            x = before.input[0]
            before = pattern.sole_producer(x)
        span = pattern.row_slice(before)
        if before is not None and span is not None:
            parts.append(before)
            x = before.input[0]
        inputs, last = [x], node
        added = _residual(pattern, node)
        if added is not None:
            last, residual = added
            parts.append(last)
            inputs.append(residual)
        k = gate.input[1]
        constants = pattern.graph.constants
        first_row, rows = span or (0, None)
        step = cls(
            name=pattern.name(node),
            gelu=gelu,
            norm=norm,
            gate=Gate(
                attribute(gate, "group", 1),
                attribute(gate, "scope", 0),
                float(constants[k]) if k in constants else 0.0,
            ),
            linear=_ternary(pattern, node),
            residual=added is not None,
            first_row=first_row,
            rows=rows,
        )
        parts.append(parts.pop(parts.index(last)))
        return Found(step, tuple(parts), tuple(inputs), (last.output[0],))

    def results(self, inputs: Sequence[Sequence[Any]], outputs: int) -> list[list[Any]]:
        """A row for each that it reads."""
        rows = inputs[0][0] - self.first_row if self.rows is None else self.rows
        return [[rows, self.linear.n_out]]

    def fields(self, key: str, out: Descriptors) -> list[str]:
        """Of its ``tatvpr_gated_linear``, alone or inside an MLP."""
        norm = "NULL"
        if self.norm is not None:
            self.norm.declare(f"{key}_norm", out)
            norm = f"&{key}_norm"
        gate, linear = self.gate, self.linear
        ternary = [
            f".k_in = {linear.k_in}",
            f".n_out = {linear.n_out}",
            f".weight = {out.blob.add_ternary(linear.weights)}u",
            f".scale = {out.blob.add(linear.scale)}u",
            f".bias = {out.blob.add(linear.bias)}u",
            f".scale_per_row = {int(linear.scale.size > 1)}",
            f".layout = TATVPR_LAYOUT_{out.blob.layout_of(linear.weights).name}",
        ]
        fixed = c_float(gate.fixed_k)
        return [
            f'.name = "{self.name}"',
            f".gelu = {int(self.gelu)}",
            f".norm = {norm}",
            f".gate = {{.group = {gate.group}, .scope = {gate.scope}, .fixed_k = {fixed}}}",
            f".linear = {{{', '.join(ternary)}}}",
        ]

    def declare(self, key: str, out: Descriptors) -> None:
        """``tatvpr_gated_linear``."""
        out.struct("gated_linear", key, self.fields(key, out))
        out.tables["linears"].append(f"&{key}")
        out.tables["ternaries"].append(f"&{key}.linear")

    def call(self, key: str, args: Arguments) -> str:
        """``tatvpr_op_gated_linear``."""
        x = advance(args.inputs[0], self.first_row, self.linear.k_in)
        rows = args.output_shapes[0][0]
        residual = args.inputs[1] if self.residual else "NULL"
        return f"tatvpr_op_gated_linear(c, &{key}, {x}, {rows}, {residual}, {args.outputs[0]})"

    def macs(self, rows: int, k: float) -> Macs:
        """The kept channels only."""
        group = self.gate.group
        channels = kept(self.gate.fixed_k or k, self.linear.k_in // group) * group
        return Macs(linear=rows * channels * self.linear.n_out)

    def gated_linears(self) -> Iterator[GatedLinear]:
        """Itself."""
        yield self

    @property
    def ends_block(self) -> bool:
        """Where it adds a residual."""
        return self.residual


def is_exact_gelu(node: onnx.NodeProto) -> bool:
    """Whether a node is the GELU that the core has: not an approximation of it."""
    return node.op_type == "Gelu" and attribute(node, "approximate", b"none") == b"none"


def _residual(pattern: Pattern, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
    """The Add that is the only reader of ``node``, and its other operand of equal shape.

    Of two products that are added, the later one adds: the other is there by then.
    """
    y = node.output[0]
    add = pattern.sole_consumer(node, "Add")
    other = [] if add is None else [name for name in add.input if name != y]
    if add is None or len(other) != 1 or pattern.type(other[0]) != pattern.type(y):
        return None
    if other[0] in pattern.graph.constants:
        return None
    made = pattern.producers.get(other[0])
    rival = made is not None and made.op_type == node.op_type and pattern.runs_before(node, made)
    return None if rival else (add, other[0])


def _ternary(pattern: Pattern, node: onnx.NodeProto) -> Ternary:
    packed, scale, bias = (pattern.graph.constants[name] for name in node.input[2:5])
    k_in = pattern.type(node.input[0]).width
    return Ternary(pattern.name(node), unpack_ternary(packed, k_in), scale, bias)
