"""Teacher forcing: every stage of the core is fed ONNX Runtime's own intermediate values.

End to end, a last-bit difference flips roundings and grows; stage by stage, two implementations
must agree at level (a) of docs/numerics.md, and float stages within 1e-5 of the tensor's maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from support.stages import Stages
from tatvpr_edge.compilers.checks import check_model
from tatvpr_edge.compilers.graph import attribute
from tatvpr_edge.compilers.reference import Reference

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """How far a stage is off, in units of its tolerance (at most 1 is a pass)."""

    stage: str
    kind: str
    worst: float


def reference_of(model: onnx.ModelProto) -> Reference:
    """ONNX Runtime on a model with every intermediate value as an output."""
    return Reference(model, check_model(model), every=True)


def force(
    reference: Reference, stages: Stages, frame: NDArray[np.uint8], k: float, tokens: float
) -> list[Difference]:
    """Run every stage of the core on the reference's inputs."""
    values = reference.run(frame, k, tokens)
    producers = reference.graph.producers()
    found = []
    for node in reference.graph.nodes:
        x = values[node.input[0]]
        y = values[node.output[0]]
        name = node.name or node.output[0]
        if node.op_type == "PatchEmbed":
            found.append(_integer(name, node, stages.patch_embed(frame), y, values))
        elif node.op_type == "TernaryMatMul":
            gate = producers[node.input[0]]
            given = values[gate.input[0]]
            share = float(values[gate.input[1]])
            found.append(_integer(name, node, stages.linear(name, given, share), y, values))
        elif node.op_type == "LayerNormalization":
            found.append(_float(name, node, stages.norm(name, x), y))
        elif node.op_type == "Gelu":
            found.append(_float(name, node, stages.gelu(x), y))
        elif node.op_type == "QuantAttention":
            mixed, looked = stages.attention(name, x)
            found.append(_float(name, node, mixed, y))
            found.append(_float(f"{name} A", node, looked, values[node.output[1]]))
        elif node.op_type == "KeepTokens":
            kept = stages.keep_tokens(x, values[node.input[1]], tokens)
            same = kept.shape == y.shape and np.array_equal(kept, y)
            found.append(Difference(name, node.op_type, 0.0 if same else np.inf))
        elif node.op_type == "LpNormalization":
            found.append(_float(name, node, stages.l2_normalize(x, 1e-12), y))
        elif node.op_type == "Clip" and producers[node.input[0]].op_type == "Slice":
            clamp = float(values[node.input[1]])
            readers = reference.graph.consumers()
            weight, root = None, node
            while root is node or root.op_type != "Pow":
                (root,) = readers[(node if root is node else root).output[0]]
                if root.op_type == "Pow" and values[root.input[1]] == 3.0:
                    (root,) = readers[root.output[0]]
                if root.op_type == "Mul":
                    weight = values[root.input[1]]
            pooled = stages.gem(np.ascontiguousarray(x), clamp, weight)
            found.append(_float(root.name, root, pooled, values[root.output[0]].reshape(-1)))
    return found


def _integer(
    name: str, node: onnx.NodeProto, got: F32, wanted: F32, values: dict[str, NDArray[Any]]
) -> Difference:
    """Level (a): the same integers, so floats within 1e-6 * (|acc * s * scale| + |bias|)."""
    bias = values[node.input[-1]]
    tolerance = 1e-6 * (np.abs(wanted - bias) + np.abs(bias)) + 1e-30
    return Difference(name, node.op_type, float((np.abs(got - wanted) / tolerance).max()))


def _float(name: str, node: onnx.NodeProto, got: F32, wanted: F32) -> Difference:
    tolerance = 1e-5 * float(np.abs(wanted).max())
    return Difference(name, node.op_type, float(np.abs(got - wanted).max()) / tolerance)


__all__ = ["Difference", "Reference", "attribute", "force", "reference_of"]
