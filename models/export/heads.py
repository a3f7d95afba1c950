"""Each head written into a graph; the last node is always called ``descriptor``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import nn

from tatvpr_edge.models.export.graph import Graph
from tatvpr_edge.models.export.layers import write_ternary
from tatvpr_edge.models.export.learned_heads import write_boq, write_mixvpr, write_salad
from tatvpr_edge.models.heads.boq import BoQHead
from tatvpr_edge.models.heads.mixvpr import MixVPRHead
from tatvpr_edge.models.heads.pooling import GEM_FLOOR, CLSHead, GeMHead
from tatvpr_edge.models.heads.salad import SALADHead
from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.layers import TernaryLayer
from tatvpr_edge.spec.errors import ModelError

OUTPUT = "descriptor"


def write_head(graph: Graph, head: nn.Module, tokens: str, backbone: ViTConfig) -> str:
    """``head`` on ``tokens [T, D]``; returns "descriptor", ``[size]``.

    Raises:
        ModelError: a head that has no writer.
    """
    for kind, write in WRITERS.items():
        if isinstance(head, kind):
            return write(graph, head, tokens, backbone)
    raise ModelError(f"head {type(head).__name__} has no ONNX writer in models/export/heads.py")


def _cls(graph: Graph, head: CLSHead, tokens: str, backbone: ViTConfig) -> str:
    x = graph.slice(tokens, "head.cls", 0, 1)
    return _finish(graph, x, [] if head.proj is None else [head.proj])


def _gem(graph: Graph, head: GeMHead, tokens: str, backbone: ViTConfig) -> str:
    x = graph.slice(tokens, "head.patches", 1, 0)
    floor = graph.weight("head.gem.floor", np.array(GEM_FLOOR, dtype=np.float32))
    power = graph.weight("head.gem.power", np.array(3.0, dtype=np.float32))
    root = graph.weight("head.gem.root", np.array(1.0 / 3.0, dtype=np.float32))
    x = graph.add("Clip", [x, floor], "head.gem.clip")
    x = graph.add("Pow", [x, power], "head.gem.cube")
    x = graph.add("ReduceMean", [x, graph.axes(0)], "head.gem.mean", keepdims=1)
    x = graph.add("Pow", [x, root], "head.gem")
    return _finish(graph, x, [] if head.proj is None else [head.proj, *head.finer])


def _finish(graph: Graph, x: str, layers: Iterable[nn.Module]) -> str:
    """``x [1, D]``, projected by the sum of ``layers`` if there are any, as one unit vector."""
    projected = x
    for number, layer in enumerate(layers):
        assert isinstance(layer, TernaryLayer)
        name = "head.proj" if number == 0 else f"head.finer.{number - 1}"
        part = write_ternary(graph, x, name, layer)
        projected = part if number == 0 else graph.add("Add", [part, projected], f"{name}.sum")
    return graph.l2_normalize(graph.reshape(projected, "head.flat", [-1]), OUTPUT)


WRITERS: dict[type[nn.Module], Callable[[Graph, Any, str, ViTConfig], str]] = {
    CLSHead: _cls,
    GeMHead: _gem,
    BoQHead: write_boq,
    SALADHead: write_salad,
    MixVPRHead: write_mixvpr,
}
