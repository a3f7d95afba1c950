"""A checked graph to heavy steps for the C core plus what remains for a compiler.

Each step of :data:`tatvpr_edge.compilers.steps.STEPS` looks for itself. A match becomes one node of
the domain ``steps.FUSED`` that names its step; what matches nothing (concatenation, reshapes,
learned heads) stays standard ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx

from tatvpr_edge.compilers.checks import FRAME, TOKENS, K
from tatvpr_edge.compilers.graph import Graph, label
from tatvpr_edge.compilers.names import unique
from tatvpr_edge.compilers.steps import FUSED, STEP, STEPS, Step
from tatvpr_edge.compilers.steps.keep_tokens import KEPT_INPUTS
from tatvpr_edge.compilers.steps.pattern import Pattern
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.operators import DOMAIN


@dataclass
class Matched:
    """The rewritten graph and its steps by name, in execution order."""

    graph: Graph
    steps: dict[str, Step]
    image_size: int
    token_dim: int
    max_tokens: int
    descriptor_size: int

    def step_of(self, node: onnx.NodeProto) -> Step | None:
        """The step that a node of the rewritten graph stands for."""
        return self.steps[node.name] if node.domain == FUSED else None

    @property
    def kept_counts(self) -> list[str]:
        """Symbols of the token counts that stand after each KeepTokens, in order."""
        counts = (s.kept_count for s in self.steps.values() if s.kept_count is not None)
        return list(dict.fromkeys(counts))  # once, though a table may leave with the tokens

    @property
    def keeps_tokens(self) -> bool:
        """Whether the token count is a run-time value."""
        return bool(self.kept_counts)

    @property
    def last_block(self) -> onnx.NodeProto | None:
        """The node whose result is the last block's tokens; a head may add to fewer rows."""
        found, tokens = None, None
        for node in self.graph.nodes:
            step, made = self.step_of(node), self.graph.types[node.output[0]].shape
            if step is not None and step.token_dim is not None:
                tokens = made
            elif step is not None and step.ends_block and made == tokens:
                found = node
        return found


def match(graph: Graph) -> Matched:
    """Rewrite ``graph`` (a checked one; it is not changed).

    Raises:
        ModelError: the graph uses k or tokens outside of their operators.
    """
    steps: dict[str, Step] = {}
    work = replace(graph, nodes=_rewritten(graph, steps), types=dict(graph.types))
    work.keep_only(graph.outputs)
    used = {name for node in work.nodes for name in node.input}
    for name in (K, TOKENS):
        if name in used:
            raise ModelError(
                f"input {name!r} is used outside of the operators of {DOMAIN}, which is not lowered"
            )
    counts = [step.kept_count for step in steps.values() if step.kept_count is not None]
    carriers = {KEPT_INPUTS[s]: replace(graph.inputs[K], shape=(s,)) for s in counts}
    work.inputs = {FRAME: graph.inputs[FRAME], **carriers}
    side = graph.inputs[FRAME].shape[0]
    assert isinstance(side, int)
    tokens = [
        graph.types[node.input[0]].shape[0]
        for node in graph.nodes
        if node.domain == DOMAIN and node.op_type == "QuantAttention"
    ]
    first = next((t for t in tokens if isinstance(t, int)), None)
    if first is None:
        raise ModelError("the model has no QuantAttention before KeepTokens: it is no transformer")
    dims = [step.token_dim for step in steps.values() if step.token_dim is not None]
    size = graph.types[graph.outputs[0]].shape[0]
    assert isinstance(size, int)
    return Matched(work, steps, side, dims[-1], first, size)


def _rewritten(graph: Graph, steps: dict[str, Step]) -> list[onnx.NodeProto]:
    """The nodes with every match as one node; fills ``steps`` in execution order."""
    pattern = Pattern(graph)
    taken: set[int] = set()  # ids of nodes that became part of a step
    made: dict[int, onnx.NodeProto] = {}  # id of the last node of a match -> the new node
    for kind, node in _places(graph):
        found = None if id(node) in taken else kind.match(pattern, node)
        if found is None or any(graph.types[name].dtype != np.float32 for name in found.outputs):
            continue  # the core computes in float32 alone
        last = found.parts[-1]
        if any(id(part) in taken for part in found.parts):
            raise ModelError(f"{label(last)}: its pattern overlaps another one")
        taken.update(id(part) for part in found.parts)
        key = unique(found.step.name, steps)
        steps[key] = found.step
        made[id(last)] = onnx.helper.make_node(
            kind.__name__, found.inputs, found.outputs, name=key, domain=FUSED, **{STEP: key}
        )
    nodes = [made.get(id(n), n) for n in graph.nodes if id(n) in made or id(n) not in taken]
    nodes.sort(key=lambda node: node.op_type != "PatchEmbed")  # pixels lie where later steps work
    for kind in STEPS:
        nodes = kind.join(nodes, steps)
    ordered = {node.name: steps[node.name] for node in nodes if node.domain == FUSED}
    steps.clear()
    steps.update(ordered)
    return nodes


def _places(graph: Graph) -> Iterator[tuple[type[Step], onnx.NodeProto]]:
    """Every kind of step with every node at which it looks; what stands alone comes last."""
    for alone in (False, True):
        for node in graph.nodes:
            for kind in STEPS:
                if kind.alone == alone and node.op_type in kind.anchors:
                    yield kind, node
