"""Layers that backbone and heads share, written into a graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tatvpr_edge.models.export.graph import Graph
from tatvpr_edge.models.nn.config import SCOPES
from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.models.nn.quant import ternarise
from tatvpr_edge.spec.packing import pack_ternary


def array(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a parameter, as float32."""
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return values


def write_ternary(graph: Graph, x: str, name: str, layer: TernaryLayer) -> str:
    """Gate and ternary product; an ungated layer gates with a constant k of 1."""
    k = "k" if layer.gated else graph.constant("k.dense", np.array(1.0, dtype=np.float32))
    q, s = f"{name}.q", f"{name}.s"
    graph.custom(
        "TopKGate",
        [x, k],
        f"{name}.gate",
        outputs=[q, s],
        group=layer.group,
        scope=SCOPES.index(layer.scope),
    )
    w, scale = ternarise(layer.weight.detach().float(), layer.row_scales)
    outputs = layer.weight.shape[0]
    bias = np.zeros(outputs, np.float32) if layer.bias is None else array(layer.bias)
    return graph.custom(
        "TernaryMatMul",
        [
            q,
            s,
            graph.weight(f"{name}.weight", pack_ternary(array(w).astype(np.int8))),
            graph.weight(f"{name}.scale", array(scale)),
            graph.weight(f"{name}.bias", bias),
        ],
        name,
    )
