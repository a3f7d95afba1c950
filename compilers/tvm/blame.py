"""Which operator of a head TVM compiles to something else: each by itself, on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray
from tvm import relax

from tatvpr_edge.compilers.graph import STANDARD_DOMAINS, Graph, Type
from tatvpr_edge.compilers.tvm.relax_import import import_nodes


def first_wrong(
    nodes: Sequence[onnx.NodeProto],
    values: Mapping[str, NDArray[Any]],
    graph: Graph,
    limit: float,
) -> tuple[onnx.NodeProto, float] | None:
    """The first standard node that is off by more than ``limit``, and how far (of its largest
    value); None where each agrees.

    Args:
        values: of every input and output of ``nodes``, as they should be.
    """
    for node in nodes:
        if node.domain not in STANDARD_DOMAINS:
            continue
        wanted = np.asarray(values[node.output[0]])
        if wanted.dtype.kind != "f" or wanted.size == 0:
            continue
        got = _alone(node, values, graph)
        off = float("inf")
        if got.shape == wanted.shape:
            most = float(np.abs(wanted).max())
            off = float(np.abs(got - wanted).max()) / (most or 1.0)
        if not off <= limit:
            return node, off
    return None


def _alone(
    node: onnx.NodeProto, values: Mapping[str, NDArray[Any]], graph: Graph
) -> NDArray[np.float32]:
    """What TVM computes for one node from those inputs."""
    fed = [name for name in dict.fromkeys(node.input) if name and name not in graph.constants]
    constants = {n: graph.constants[n] for n in node.input if n in graph.constants}
    given = {name: np.ascontiguousarray(values[name]) for name in fed}
    shapes = {name: Type(value.dtype, value.shape) for name, value in given.items()}
    wanted = np.asarray(values[node.output[0]])
    module = import_nodes(
        [node], shapes, {node.output[0]: Type(wanted.dtype, wanted.shape)}, constants, graph.opset
    )
    machine = relax.VirtualMachine(relax.build(module, "llvm"), tvm.cpu())
    answer = machine["main"](*(tvm.runtime.tensor(value) for value in given.values()))
    return np.asarray(answer.numpy() if hasattr(answer, "numpy") else answer[0].numpy())
