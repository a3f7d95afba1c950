"""BoQ, SALAD and MixVPR written into a graph, in standard operators that any compiler lowers.

Shapes are static: backbones with these heads drop no tokens.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from tatvpr_edge.models.export.graph import Graph
from tatvpr_edge.models.export.layers import array
from tatvpr_edge.models.heads.boq import Attention, BoQHead, BoQLayer
from tatvpr_edge.models.heads.mixvpr import Mixer, MixVPRHead
from tatvpr_edge.models.heads.salad import SINKHORN_STEPS, SALADHead, marginals
from tatvpr_edge.models.nn.config import ViTConfig

OUTPUT = "descriptor"


def linear(graph: Graph, x: str, name: str, layer: nn.Linear) -> str:
    """A dense layer over the last axis."""
    return graph.matmul(x, name, array(layer.weight), array(layer.bias))


def norm(graph: Graph, x: str, name: str, layer: nn.LayerNorm) -> str:
    """A LayerNorm."""
    return graph.layer_norm(x, name, array(layer.weight), array(layer.bias))


def write_boq(graph: Graph, head: BoQHead, tokens: str, backbone: ViTConfig) -> str:
    """BoQ; the queries' own attention is a constant after training and is folded."""
    x = graph.slice(tokens, "head.patches", 1, 0)
    x = norm(graph, linear(graph, x, "head.proj", head.proj), "head.norm", head.norm)
    answers = []
    for number, module in enumerate(head.layers):
        layer, name = cast(BoQLayer, module), f"head.layers.{number}"
        normed = norm(graph, x, f"{name}.norm1", layer.norm1)
        q = linear(graph, normed, f"{name}.attn.q", layer.attn.q)
        attended = _attend(graph, q, normed, f"{name}.attn", layer.attn)
        x = graph.add("Add", [x, attended], f"{name}.residual1")
        hidden = norm(graph, x, f"{name}.norm2", layer.norm2)
        hidden = linear(graph, hidden, f"{name}.up", layer.up)
        hidden = graph.add("Gelu", [hidden], f"{name}.gelu", approximate="none")
        hidden = linear(graph, hidden, f"{name}.down", layer.down)
        x = graph.add("Add", [x, hidden], f"{name}.residual2")
        asked = graph.weight(f"{name}.asked", array(layer.cross_attn.q(layer.asked())[0]))
        answer = _attend(graph, asked, x, f"{name}.cross", layer.cross_attn)
        answers.append(norm(graph, answer, f"{name}.out_norm", layer.out_norm))
    joined = graph.add("Concat", answers, "head.answers", axis=0)
    turned = graph.add("Transpose", [joined], "head.turned", perm=[1, 0])
    mixed = linear(graph, turned, "head.mix", head.mix)
    return graph.l2_normalize(graph.reshape(mixed, "head.flat", [-1]), OUTPUT)


def _attend(graph: Graph, q: str, tokens: str, name: str, layer: Attention) -> str:
    """Projected queries ``[Q, C]`` over ``tokens [T, C]``."""
    heads, width = layer.heads, layer.q.out_features // layer.heads

    def split(x: str, part: str, perm: list[int]) -> str:
        x = graph.reshape(x, f"{name}.{part}.split", [-1, heads, width])
        return graph.add("Transpose", [x], f"{name}.{part}.heads", perm=perm)

    queries = split(q, "q", [1, 0, 2])
    keys = split(linear(graph, tokens, f"{name}.k", layer.k), "k", [1, 2, 0])
    values = split(linear(graph, tokens, f"{name}.v", layer.v), "v", [1, 0, 2])
    scale = graph.weight(f"{name}.scale", np.array(width**-0.5, dtype=np.float32))
    logits = graph.add("MatMul", [queries, keys], f"{name}.logits")
    logits = graph.add("Mul", [logits, scale], f"{name}.scaled")
    weights = graph.add("Softmax", [logits], f"{name}.weights", axis=-1)
    y = graph.add("MatMul", [weights, values], f"{name}.mixed")
    y = graph.add("Transpose", [y], f"{name}.joined", perm=[1, 0, 2])
    y = graph.reshape(y, f"{name}.flat", [-1, heads * width])
    return linear(graph, y, f"{name}.out", layer.out)


def write_salad(graph: Graph, head: SALADHead, tokens: str, backbone: ViTConfig) -> str:
    """SALAD; Sinkhorn's iterations are unrolled, logarithms of sums of exponentials spelled so
    that no exponential overflows."""
    patches = graph.slice(tokens, "head.patches", 1, 0)
    scores = graph.add(
        "Transpose", [_two_layers(graph, patches, "head.scores", head.scores)], "head.turned",
        perm=[1, 0],
    )  # fmt: skip
    clusters, n = cast(nn.Linear, head.scores[2]).out_features, backbone.patches
    bin_row = graph.weight("head.dustbin", np.full((1, n), head.dustbin.item(), np.float32))
    scores = graph.add("Concat", [scores, bin_row], "head.with_bin", axis=0)
    unit, rows = marginals(clusters, n)
    row_mass = graph.weight("head.row_mass", np.array(rows, dtype=np.float32)[:, None])
    column_mass = graph.weight("head.column_mass", np.array(unit, dtype=np.float32))
    v = graph.weight("head.v0", np.zeros((1, n), dtype=np.float32))
    u = ""
    for step in range(SINKHORN_STEPS):
        name = f"head.sinkhorn.{step}"
        across = _log_sum_exp(graph, graph.add("Add", [scores, v], f"{name}.a"), f"{name}.u", 1)
        u = graph.add("Sub", [row_mass, across], f"{name}.row")
        down = _log_sum_exp(graph, graph.add("Add", [scores, u], f"{name}.b"), f"{name}.v", 0)
        v = graph.add("Sub", [column_mass, down], f"{name}.column")
    plan = graph.add("Add", [graph.add("Add", [scores, u], "head.plan.u"), v], "head.plan.v")
    plan = graph.add("Exp", [graph.add("Sub", [plan, column_mass], "head.plan.log")], "head.plan")
    assigned = graph.slice(plan, "head.assigned", 0, clusters)
    features = _two_layers(graph, patches, "head.features", head.features)
    sums = graph.add("MatMul", [assigned, features], "head.sums")
    sums = graph.l2_normalize(sums, "head.unit_sums")
    cls = graph.slice(tokens, "head.cls", 0, 1)
    summary = graph.l2_normalize(_two_layers(graph, cls, "head.summary", head.summary), "head.unit")
    joined = graph.add(
        "Concat",
        [
            graph.reshape(summary, "head.summary.flat", [-1]),
            graph.reshape(sums, "head.sums.flat", [-1]),
        ],
        "head.joined",
        axis=0,
    )
    return graph.l2_normalize(joined, OUTPUT)


def _log_sum_exp(graph: Graph, x: str, name: str, axis: int) -> str:
    axes = graph.axes(axis)
    top = graph.add("ReduceMax", [x, axes], f"{name}.top", keepdims=1)
    powers = graph.add("Exp", [graph.add("Sub", [x, top], f"{name}.less")], f"{name}.exp")
    total = graph.add("ReduceSum", [powers, axes], f"{name}.total", keepdims=1)
    return graph.add("Add", [graph.add("Log", [total], f"{name}.log"), top], name)


def _two_layers(graph: Graph, x: str, name: str, layers: nn.Sequential) -> str:
    hidden = linear(graph, x, f"{name}.up", cast(nn.Linear, layers[0]))
    hidden = graph.add("Relu", [hidden], f"{name}.relu")
    return linear(graph, hidden, f"{name}.down", cast(nn.Linear, layers[2]))


def write_mixvpr(graph: Graph, head: MixVPRHead, tokens: str, backbone: ViTConfig) -> str:
    """MixVPR."""
    x = graph.slice(tokens, "head.patches", 1, 0)
    x = graph.add("Transpose", [x], "head.maps", perm=[1, 0])
    for number, module in enumerate(head.mixers):
        mixer, name = cast(Mixer, module), f"head.mixers.{number}"
        hidden = norm(graph, x, f"{name}.norm", mixer.norm)
        hidden = linear(graph, hidden, f"{name}.up", mixer.up)
        hidden = graph.add("Relu", [hidden], f"{name}.relu")
        hidden = linear(graph, hidden, f"{name}.down", mixer.down)
        x = graph.add("Add", [x, hidden], f"{name}.residual")
    x = graph.add("Transpose", [x], "head.tokens", perm=[1, 0])
    x = linear(graph, x, "head.channels", head.channels)
    x = graph.add("Transpose", [x], "head.channels.turned", perm=[1, 0])
    x = linear(graph, x, "head.rows", head.rows)
    return graph.l2_normalize(graph.reshape(x, "head.flat", [-1]), OUTPUT)
