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
from torch import Tensor, nn

from tatvpr_edge.models.nn.config import SCOPES
from tatvpr_edge.models.nn.layers import NORM_EPS, TernaryLayer
from tatvpr_edge.models.nn.quant import ternarise
from tatvpr_edge.spec.operators import DOMAIN
from tatvpr_edge.spec.packing import pack_ternary

#: Name of a model's output.
DESCRIPTOR = "descriptor"
_NORM_PARTS = ("weight", "bias")


class Graph:
    """Collects nodes and weights; every method adds one step and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, values: NDArray[Any] | Tensor) -> str:
        """A named weight (a tensor as float32); asking for a name twice is the caller's mistake."""
        if name in self.weights:
            raise ValueError(f"weight {name} is written twice")
        given = array(values) if isinstance(values, Tensor) else values
        whole = np.ascontiguousarray(given) if np.ndim(given) else np.asarray(given)
        self.weights[name] = numpy_helper.from_array(whole, name)
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

    def norm(self, x: str, name: str, layer: nn.Module) -> str:
        """LayerNorm over the last axis; ``layer`` is torch's, or ours of the same parameters."""
        weights = [self.weight(f"{name}.{part}", getattr(layer, part)) for part in _NORM_PARTS]
        return self.add("LayerNormalization", [x, *weights], name, axis=-1, epsilon=NORM_EPS)

    def linear(self, x: str, name: str, layer: nn.Linear) -> str:
        """A dense layer over the last axis, ``x @ weight.T + bias`` in float32."""
        weight = self.weight(f"{name}.weight", array(layer.weight).T)
        y = self.add("MatMul", [x, weight], f"{name}.matmul")
        return self.add("Add", [y, self.weight(f"{name}.bias", layer.bias)], name)

    def ternary(self, x: str, name: str, layer: TernaryLayer) -> str:
        """Gate and ternary product; an ungated layer gates with a constant k of 1."""
        k = "k" if layer.gated else self.constant("k.dense", np.array(1.0, dtype=np.float32))
        q, s = f"{name}.q", f"{name}.s"
        self.custom(
            "TopKGate",
            [x, k],
            f"{name}.gate",
            outputs=[q, s],
            group=layer.group,
            scope=SCOPES.index(layer.scope),
        )
        w, scale = ternarise(layer.weight.detach().float(), layer.row_scales)
        outputs = layer.weight.shape[0]
        if layer.bias is None:
            bias = self.constant(f"bias.none.{outputs}", np.zeros(outputs, np.float32))
        else:
            bias = self.weight(f"{name}.bias", layer.bias)
        return self.custom(
            "TernaryMatMul",
            [
                q,
                s,
                self.weight(f"{name}.weight", pack_ternary(array(w).astype(np.int8))),
                self.weight(f"{name}.scale", scale),
                bias,
            ],
            name,
        )

    def descriptor(self, x: str) -> str:
        """``x`` as one vector of unit length: the graph's output."""
        return self.l2_normalize(self.reshape(x, "head.flat", [-1]), DESCRIPTOR)

    def reshape(self, x: str, name: str, shape: Sequence[int]) -> str:
        """``x`` in another shape; 0 keeps a dimension, -1 infers one."""
        target = self.constant(
            "shape." + "x".join(map(str, shape)), np.array(shape, dtype=np.int64)
        )
        return self.add("Reshape", [x, target], name)

    def slice(self, x: str, name: str, start: int, end: int) -> str:
        """``x[start:end]``; ``end`` 0 means to the last."""
        last = np.iinfo(np.int64).max if end == 0 else end
        parts = [
            self.constant(f"index.{'end' if value == last and end == 0 else value}", _one(value))
            for value in (start, last, 0)
        ]
        return self.add("Slice", [x, *parts], name)

    def axes(self, *axes: int) -> str:
        """A shared constant list of axes."""
        return self.constant("axes." + ".".join(map(str, axes)), np.array(axes, dtype=np.int64))

    def l2_normalize(self, x: str, name: str) -> str:
        """``x`` at unit length along its last axis."""
        return self.add("LpNormalization", [x], name, axis=-1, p=2)

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


def array(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a parameter, as float32."""
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return values


def scalar_input(name: str) -> onnx.ValueInfoProto:
    """A run-time number."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [])


def _one(value: int) -> NDArray[np.int64]:
    return np.array([value], dtype=np.int64)
