"""A trained model to an ONNX graph, node by node: what every compiler of this project reads.

The graph is written from configuration and weights instead of traced, so that LayerNorm, GELU and
the heads stay single, recognisable nodes and every weight keeps its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tatvpr_edge.models.nn.layers import NORM_EPS
from tatvpr_edge.spec.operators import DOMAIN


class Graph:
    """Collects nodes and weights; every method adds one step and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, values: NDArray[Any] | float) -> str:
        """A named weight; asking for the same name twice is a mistake of the caller."""
        if name in self.weights:
            raise ValueError(f"weight {name} is written twice")
        array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
        self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A weight that several nodes may share."""
        return name if name in self.weights else self.weight(name, values)

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        *,
        outputs: Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """One node; returns its first output, called ``name`` unless ``outputs`` says otherwise."""
        results = list(outputs or [name])
        self.nodes.append(
            helper.make_node(op, list(inputs), results, name=name, domain=domain, **attributes)
        )
        return results[0]

    def custom(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> str:
        """One operator of ours."""
        return self.add(op, inputs, name, outputs=outputs, domain=DOMAIN, **attributes)

    def layer_norm(
        self, x: str, name: str, gamma: NDArray[np.float32], beta: NDArray[np.float32]
    ) -> str:
        """LayerNorm over the last axis."""
        weights = [self.weight(f"{name}.weight", gamma), self.weight(f"{name}.bias", beta)]
        return self.add("LayerNormalization", [x, *weights], name, axis=-1, epsilon=NORM_EPS)

    def matmul(
        self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> str:
        """``x @ weight.T + bias`` in float32, ``weight [N, K]`` as torch keeps it."""
        y = self.add("MatMul", [x, self.weight(f"{name}.weight", weight.T)], f"{name}.matmul")
        if bias is None:
            return y
        return self.add("Add", [y, self.weight(f"{name}.bias", bias)], name)

    def reshape(self, x: str, name: str, shape: Sequence[int]) -> str:
        """``x`` in another shape; 0 keeps a dimension, -1 infers one."""
        target = self.constant(
            "shape." + "x".join(map(str, shape)), np.array(shape, dtype=np.int64)
        )
        return self.add("Reshape", [x, target], name)

    def slice(self, x: str, name: str, start: int, end: int, axis: int = 0) -> str:
        """``x[start:end]`` along ``axis``; ``end`` 0 means to the last."""
        last = np.iinfo(np.int64).max if end == 0 else end
        parts = [
            self.constant(f"index.{'end' if value == last and end == 0 else value}", _one(value))
            for value in (start, last, axis)
        ]
        return self.add("Slice", [x, *parts], name)

    def axes(self, *axes: int) -> str:
        """A shared constant list of axes."""
        return self.constant("axes." + ".".join(map(str, axes)), np.array(axes, dtype=np.int64))

    def l2_normalize(self, x: str, name: str, axis: int = -1) -> str:
        """``x`` at unit length along ``axis``."""
        return self.add("LpNormalization", [x], name, axis=axis, p=2)

    def proto(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The finished graph."""
        return helper.make_graph(
            self.nodes, name, list(inputs), list(outputs), list(self.weights.values())
        )


def scalar_input(name: str) -> onnx.ValueInfoProto:
    """A run-time number."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [])


def _one(value: int) -> NDArray[np.int64]:
    return np.array([value], dtype=np.int64)
