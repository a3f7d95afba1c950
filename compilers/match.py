"""A checked graph to heavy steps for the C core plus what remains for a compiler.

Patterns: [Gelu] [LayerNormalization] TopKGate -> TernaryMatMul [+ Add], two of those as a block's
second half, attention, token dropping, LayerNorm, GELU, GeM and L2 normalisation. Each match
becomes one node of the domain ``ir.FUSED`` that names its :class:`~tatvpr_edge.compilers.ir.Step`;
what matches nothing (concatenation, reshapes, learned heads) stays standard ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from tatvpr_edge.compilers import ir
from tatvpr_edge.compilers.blocks import merge_mlps, unique, without_dead
from tatvpr_edge.compilers.checks import FRAME, TOKENS, K
from tatvpr_edge.compilers.graph import KEPT, STANDARD_DOMAINS, Graph, attribute, label
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN
from tatvpr_edge.spec.packing import unpack_ternary
from tatvpr_edge.spec.reference import L2_EPS, LAYER_NORM_EPS

#: Inputs of the rewritten graph that carry the symbols of kept token counts.
KEPT_INPUTS = {symbol: f"{symbol}.rows" for symbol in KEPT}
_GEM_POWER = 3.0


@dataclass
class Matched:
    """The rewritten graph and its steps by name, in execution order."""

    graph: Graph
    steps: dict[str, ir.Step]
    image_size: int
    token_dim: int
    max_tokens: int
    descriptor_size: int

    def step_of(self, node: onnx.NodeProto) -> ir.Step | None:
        """The step that a node of the rewritten graph stands for."""
        return self.steps.get(node.name) if node.domain == ir.FUSED else None

    @property
    def keeps(self) -> list[ir.KeepTokens]:
        """The steps after which fewer tokens stand, in order."""
        return [step for step in self.steps.values() if isinstance(step, ir.KeepTokens)]

    @property
    def keeps_tokens(self) -> bool:
        """Whether the token count is a run-time value."""
        return bool(self.keeps)


def match(graph: Graph) -> Matched:
    """Rewrite ``graph`` (a checked one; it is not changed).

    Raises:
        ModelError: the graph uses k or tokens outside of their operators.
    """
    work = replace(
        graph,
        nodes=list(graph.nodes),
        types=dict(graph.types),
        constants=dict(graph.constants),
    )
    steps: dict[str, ir.Step] = {}
    nodes = _Rewriter(work, steps).run()
    work.nodes = nodes
    used = {name for node in nodes for name in node.input}
    for name in (K, TOKENS):
        if name in used:
            raise ModelError(
                f"input {name!r} is used outside of the operators of {DOMAIN}, which is not lowered"
            )
    work.inputs = {FRAME: graph.inputs[FRAME]}
    for symbol in (step.count for step in steps.values() if isinstance(step, ir.KeepTokens)):
        work.inputs[KEPT_INPUTS[symbol]] = replace(graph.inputs[K], shape=(symbol,))
    work.constants = {n: v for n, v in work.constants.items() if n in used}
    side = graph.inputs[FRAME].shape[0]
    assert isinstance(side, int)
    tokens = [
        graph.types[node.input[0]].shape[0]
        for node in graph.nodes
        if node.domain == DOMAIN and node.op_type == "QuantAttention"
    ]
    counts = [t for t in tokens if isinstance(t, int)]
    if not counts:
        raise ModelError("the model has no QuantAttention before KeepTokens: it is no transformer")
    dims = [step.dim for step in steps.values() if isinstance(step, ir.Attention)]
    size = graph.types[graph.outputs[0]].shape[0]
    assert isinstance(size, int)
    return Matched(work, steps, side, dims[-1], counts[0], size)


class _Rewriter:
    """One pass over the nodes in order; each heavy node takes its helpers with it."""

    def __init__(self, graph: Graph, steps: dict[str, ir.Step]) -> None:
        self.graph = graph
        self.steps = steps
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.taken: set[int] = set()  # ids of nodes that became part of a step
        self.made: dict[int, onnx.NodeProto] = {}  # id of the last node of a match -> new node

    def run(self) -> list[onnx.NodeProto]:
        """The new node list."""
        for node in self.graph.nodes:
            if id(node) not in self.taken:
                self._visit(node)
        nodes = [
            self.made.get(id(node)) or self._static_rows(node)
            for node in self.graph.nodes
            if id(node) in self.made or id(node) not in self.taken
        ]
        return without_dead(merge_mlps(nodes, self.steps), self.graph.outputs)

    def _visit(self, node: onnx.NodeProto) -> None:
        if node.domain == DOMAIN:
            if node.op_type == "PatchEmbed":
                self._patch_embed(node)
            elif node.op_type == "TernaryMatMul":
                self._gated_linear(node)
            elif node.op_type == "QuantAttention":
                dim = self.graph.types[node.output[0]].width
                step = ir.Attention(self._name(node), attribute(node, "heads"), dim)
                looked = len(node.output) > 1 and node.output[1] in self.consumers
                self._emit(node, [node], step, [node.input[0]], node.output[: 1 + looked])
            elif node.op_type == "KeepTokens":
                stays = self.graph.types[node.output[0]]
                step_k = ir.KeepTokens(self._name(node), stays.width, str(stays.shape[0]))
                inputs = [*node.input[:2], KEPT_INPUTS[step_k.count]]
                self._emit(node, [node], step_k, inputs, node.output)
        elif node.op_type == "LayerNormalization" and not self._absorbed(node):
            norm = self._norm(node)
            if norm is not None:
                self._emit(node, [node], ir.LayerNorm(norm.name, norm), [node.input[0]])
        elif node.op_type == "Gelu" and not self._absorbed(node) and _is_exact_gelu(node):
            self._emit(node, [node], ir.Gelu(self._name(node)), [node.input[0]])
        elif node.op_type == "LpNormalization":
            self._l2(node)
        elif node.op_type in ("Clip", "Max"):
            self._gem(node)

    # ---- patterns ---------------------------------------------------------------------------

    def _patch_embed(self, node: onnx.NodeProto) -> None:
        weights, scale, bias = (self.graph.constants[name] for name in node.input[1:])
        side = self.graph.inputs[FRAME].shape[0]
        assert isinstance(side, int)
        patch = round((weights.shape[1] // 3) ** 0.5)
        step = ir.PatchEmbed(self._name(node), side, patch, weights, scale, bias)
        self._emit(node, [node], step, [node.input[0]])

    def _gated_linear(self, node: onnx.NodeProto) -> None:
        gate_node = self.producers[node.input[0]]
        parts = [gate_node, node]
        x = gate_node.input[0]
        norm, gelu, first_row, rows = None, False, 0, None
        before = self._sole_producer(x)
        if before is not None and before.op_type == "LayerNormalization":
            norm = self._norm(before)
            if norm is not None:
                parts.append(before)
                x = before.input[0]
                before = self._sole_producer(x)
        if before is not None and before.op_type == "Gelu" and _is_exact_gelu(before):
            gelu = True
            parts.append(before)
            x = before.input[0]
            before = self._sole_producer(x)
        if before is not None and before.op_type == "Slice":
            span = self._row_slice(before)
            if span is not None:
                first_row, rows = span
                parts.append(before)
                x = before.input[0]
        group, scope = attribute(gate_node, "group", 1), attribute(gate_node, "scope", 0)
        k = gate_node.input[1]
        fixed_k = float(self.graph.constants[k]) if k in self.graph.constants else 0.0
        step = ir.GatedLinear(
            name=self._name(node),
            gelu=gelu,
            norm=norm,
            gate=ir.Gate(group, scope, fixed_k),
            linear=self._ternary(node),
            first_row=first_row,
            rows=rows,
        )
        inputs, last = [x], node
        added = self._residual(node)
        if added is not None:
            last, residual = added
            parts.append(last)
            inputs.append(residual)
            step = replace(step, residual=True)
        self._emit(last, parts, step, inputs)

    def _residual(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
        """The Add that is the only reader of ``node``, and its other operand of equal shape."""
        y = node.output[0]
        readers = self.consumers.get(y, [])
        if len(readers) != 1 or readers[0].op_type != "Add" or y in self.graph.outputs:
            return None
        other = [name for name in readers[0].input if name != y]
        if len(other) != 1 or self.graph.types[other[0]] != self.graph.types[y]:
            return None
        return None if other[0] in self.graph.constants else (readers[0], other[0])

    def _ternary(self, node: onnx.NodeProto) -> ir.Ternary:
        packed, scale, bias = (self.graph.constants[name] for name in node.input[2:5])
        k_in = self.graph.types[node.input[0]].width
        return ir.Ternary(self._name(node), unpack_ternary(packed, k_in), scale, bias)

    def _norm(self, node: onnx.NodeProto) -> ir.Norm | None:
        """The LayerNorm as the core knows it, or None where it is of another kind."""
        x = self.graph.types[node.input[0]]
        axis = attribute(node, "axis", -1)
        plain = len(node.output) == 1 or not any(o in self.consumers for o in node.output[1:])
        weights = [name for name in node.input[1:] if name]
        constant = all(name in self.graph.constants for name in weights)
        if len(x.shape) != 2 or axis not in (-1, 1) or not plain or not constant:
            return None
        zeros = np.zeros(x.width, dtype=np.float32)
        gamma = self.graph.constants[node.input[1]]
        with_beta = len(node.input) > 2 and bool(node.input[2])
        beta = self.graph.constants[node.input[2]] if with_beta else zeros
        if gamma.shape != (x.width,) or beta.shape != (x.width,):
            return None
        eps = float(attribute(node, "epsilon", LAYER_NORM_EPS * 10))  # ONNX's default is 1e-5
        return ir.Norm(self._name(node), gamma, beta, eps)

    def _l2(self, node: onnx.NodeProto) -> None:
        shape = self.graph.types[node.input[0]].shape
        if attribute(node, "p", 2) == 2 and len(shape) == 1:
            step = ir.L2Normalize(self._name(node), L2_EPS)
            self._emit(node, [node], step, [node.input[0]])

    def _gem(self, clip: onnx.NodeProto) -> None:
        """Clip below -> Pow 3 -> mean over rows -> Pow 1/3, over rows from a slice on."""
        cube = self._sole_consumer(clip, "Pow")
        mean = self._sole_consumer(cube, "ReduceMean")
        root = self._sole_consumer(mean, "Pow")
        if cube is None or mean is None or root is None:
            return
        floor = self._floor(clip)
        x = next(name for name in clip.input if name and name not in self.graph.constants)
        over_rows = self._reduced_axes(mean) == [0] and len(self.graph.types[x].shape) == 2
        powers = (self._scalar(cube.input[1]), self._scalar(root.input[1]))
        third = np.float32(1.0 / _GEM_POWER)
        if floor is None or not over_rows or powers != (_GEM_POWER, float(third)):
            return
        parts, first_row = [clip, cube, mean, root], 0
        before = self._sole_producer(x)
        if before is not None and before.op_type == "Slice":
            span = self._row_slice(before)
            if span is not None and span[1] is None:
                first_row = span[0]
                parts.append(before)
                x = before.input[0]
        keep = bool(attribute(mean, "keepdims", 1))
        self._emit(root, parts, ir.Gem(self._name(root), floor, first_row, keep), [x])

    def _static_rows(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The CLS row under an operator of its own: TVM cannot know that it is always there."""
        if node.op_type != "Slice" or self._row_slice(node) != (0, 1):
            return node
        return onnx.helper.make_node(
            ir.FIRST_ROW, [node.input[0]], list(node.output), name=node.name, domain=ir.FUSED
        )

    # ---- small questions --------------------------------------------------------------------

    def _absorbed(self, node: onnx.NodeProto) -> bool:
        """Whether a gate, perhaps behind a LayerNorm, will take this node with it."""
        if node.output[0] in self.graph.outputs:
            return False
        readers = self.consumers.get(node.output[0], [])
        if len(readers) != 1:
            return False
        reader = readers[0]
        if reader.domain == DOMAIN and reader.op_type == "TopKGate":
            return True
        chained = node.op_type == "Gelu" and reader.op_type == "LayerNormalization"
        return chained and self._norm(reader) is not None and self._absorbed(reader)

    def _sole_producer(self, name: str) -> onnx.NodeProto | None:
        """The standard node that makes ``name``, if nobody else reads it."""
        node = self.producers.get(name)
        alone = len(self.consumers.get(name, [])) == 1 and name not in self.graph.outputs
        return node if node is not None and alone and node.domain in STANDARD_DOMAINS else None

    def _sole_consumer(self, node: onnx.NodeProto | None, op_type: str) -> onnx.NodeProto | None:
        if node is None or node.output[0] in self.graph.outputs:
            return None
        readers = self.consumers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None

    def _scalar(self, name: str) -> float | None:
        value = self.graph.constants.get(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def _floor(self, node: onnx.NodeProto) -> float | None:
        """The lower bound of a Clip or Max that has nothing else."""
        if node.op_type == "Max":
            bounds = [self._scalar(n) for n in node.input if n in self.graph.constants]
            return bounds[0] if len(node.input) == 2 and len(bounds) == 1 else None
        upper = len(node.input) > 2 and bool(node.input[2])
        return None if upper or len(node.input) < 2 else self._scalar(node.input[1])

    def _reduced_axes(self, node: onnx.NodeProto) -> list[int] | None:
        if len(node.input) > 1 and node.input[1] in self.graph.constants:
            return [int(a) for a in self.graph.constants[node.input[1]].reshape(-1)]
        axes = attribute(node, "axes")
        return None if axes is None else list(axes)

    def _row_slice(self, node: onnx.NodeProto) -> tuple[int, int | None] | None:
        """(first row, how many or None for the rest) of a contiguous slice of rows."""
        if not all(name in self.graph.constants for name in node.input[1:] if name):
            return None
        values = [self.graph.constants[n].reshape(-1) if n else None for n in node.input[1:]]
        starts, ends, axes, steps = [*values, None, None][:4]
        if starts is None or ends is None or len(starts) != 1:
            return None
        axis = 0 if axes is None else int(axes[0])
        step = 1 if steps is None else int(steps[0])
        start, end = int(starts[0]), int(ends[0])
        if axis != 0 or step != 1 or start < 0 or len(self.graph.types[node.input[0]].shape) != 2:
            return None
        total = self.graph.types[node.input[0]].shape[0]
        if end >= (total if isinstance(total, int) else 2**31 - 1):
            return start, None
        # CLS is always there; more rows of a shrinking set are left to the compiler.
        return (start, end - start) if (start, end) == (0, 1) else None

    def _name(self, node: onnx.NodeProto) -> str:
        """The node's own name, or that of its result, as it may stand in a C string."""
        return re.sub(r"[^0-9A-Za-z._:/+-]", "_", node.name or node.output[0])

    def _emit(
        self,
        last: onnx.NodeProto,
        parts: list[onnx.NodeProto],
        step: ir.Step,
        inputs: list[str],
        outputs: Sequence[str] | None = None,
    ) -> None:
        if any(id(part) in self.taken for part in parts):
            raise ModelError(f"{label(last)}: its pattern overlaps another one")
        self.taken.update(id(part) for part in parts)
        key = unique(step.name, self.steps)
        self.steps[key] = step
        self.made[id(last)] = onnx.helper.make_node(
            type(step).__name__,
            inputs,
            list(last.output[:1] if outputs is None else outputs),
            name=key,
            domain=ir.FUSED,
            **{ir.STEP: key},
        )


def _is_exact_gelu(node: onnx.NodeProto) -> bool:
    return attribute(node, "approximate", b"none") == b"none"
