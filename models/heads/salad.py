"""SALAD (Izquierdo and Civera, CVPR 2024): tokens are assigned to clusters by optimal transport.

A dustbin takes tokens that belong nowhere. Its mass is ``log(max(n - m, 1))`` for ``n`` tokens and
``m`` clusters, so that small frames with more clusters than tokens have one too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.layers import Gate
from tatvpr_edge.spec.errors import ModelError

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph

#: Iterations of Sinkhorn's algorithm.
SINKHORN_STEPS = 3


class SALADHead(nn.Module):
    """Cluster sums beside a summary of the CLS token, at unit length.

    Args:
        clusters: how many.
        channels: numbers for each cluster.
        summary: numbers from the CLS token; the descriptor has ``clusters * channels + summary``.
        hidden: width of the three small networks.
    """

    needs_every_token = True

    def __init__(
        self,
        backbone: ViTConfig,
        clusters: int = 64,
        channels: int = 128,
        summary: int = 256,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        if backbone.keep_after:
            raise ModelError("salad needs every token: set keep_after = 0")
        self.features = _two_layers(backbone.dim, hidden, channels)
        self.scores = _two_layers(backbone.dim, hidden, clusters)
        self.summary = _two_layers(backbone.dim, hidden, summary)
        self.dustbin = nn.Parameter(torch.ones(1))
        self.patches = backbone.patches
        self.size = clusters * channels + summary

    @staticmethod
    def macs(
        backbone: ViTConfig, tokens: int, clusters: int, channels: int, summary: int, hidden: int
    ) -> int:
        """Multiply-accumulates of one frame; the transport is elementwise."""
        t = tokens - 1
        per_token = 2 * backbone.dim * hidden + hidden * (clusters + channels)
        return t * (per_token + clusters * channels) + hidden * (backbone.dim + summary)

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens."""
        parts = (self.features, self.scores, self.summary)
        return [cast(nn.Module, part[0]) for part in parts]

    def forward(self, tokens: Tensor, gate: Gate) -> Tensor:
        """``[B, T, D] -> [B, size]``."""
        patches = tokens[:, 1:]
        assigned = self.transport(self.scores(patches).transpose(1, 2))
        sums = F.normalize(assigned @ self.features(patches), dim=-1)
        summary = F.normalize(self.summary(tokens[:, 0]), dim=-1)
        return F.normalize(torch.cat([summary, sums.flatten(1)], dim=1), dim=-1)

    def write(self, graph: Graph, tokens: str) -> str:
        """Sinkhorn's iterations are unrolled; no exponential overflows."""
        patches = graph.slice(tokens, "head.patches", 1, 0)
        scores = _write_two_layers(graph, patches, "head.scores", self.scores)
        scores = graph.add("Transpose", [scores], "head.turned", perm=[1, 0])
        clusters, n = cast(nn.Linear, self.scores[2]).out_features, self.patches
        bin_row = graph.weight("head.dustbin", np.full((1, n), self.dustbin.item(), np.float32))
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
        plan = graph.add(
            "Exp", [graph.add("Sub", [plan, column_mass], "head.plan.log")], "head.plan"
        )
        assigned = graph.slice(plan, "head.assigned", 0, clusters)
        features = _write_two_layers(graph, patches, "head.features", self.features)
        sums = graph.add("MatMul", [assigned, features], "head.sums")
        sums = graph.l2_normalize(sums, "head.unit_sums")
        cls = graph.slice(tokens, "head.cls", 0, 1)
        summary = graph.l2_normalize(
            _write_two_layers(graph, cls, "head.summary", self.summary), "head.unit"
        )
        joined = graph.add(
            "Concat",
            [
                graph.reshape(summary, "head.summary.flat", [-1]),
                graph.reshape(sums, "head.sums.flat", [-1]),
            ],
            "head.joined",
            axis=0,
        )
        return graph.l2_normalize(joined, "descriptor")

    def transport(self, scores: Tensor) -> Tensor:
        """``[B, clusters, n] -> [B, clusters, n]``: how much of each token a cluster takes."""
        frames, clusters, n = scores.shape
        bin_row = self.dustbin.expand(frames, 1, n)
        scores = torch.cat([scores, bin_row], dim=1)
        unit, rows = marginals(clusters, n)
        row_mass = torch.tensor(rows, dtype=scores.dtype, device=scores.device)[:, None]
        u = torch.zeros_like(scores[:, :, :1])
        v = torch.zeros_like(scores[:, :1])
        for _ in range(SINKHORN_STEPS):
            u = row_mass - torch.logsumexp(scores + v, dim=2, keepdim=True)
            v = unit - torch.logsumexp(scores + u, dim=1, keepdim=True)
        return torch.exp(scores + u + v - unit)[:, :clusters]


def marginals(clusters: int, n: int) -> tuple[float, list[float]]:
    """Logarithms of the mass of a token, and of each cluster and the dustbin."""
    unit = -math.log(n + clusters)
    return unit, [unit] * clusters + [unit + math.log(max(n - clusters, 1))]


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _log_sum_exp(graph: Graph, x: str, name: str, axis: int) -> str:
    axes = graph.axes(axis)
    top = graph.add("ReduceMax", [x, axes], f"{name}.top", keepdims=1)
    powers = graph.add("Exp", [graph.add("Sub", [x, top], f"{name}.less")], f"{name}.exp")
    total = graph.add("ReduceSum", [powers, axes], f"{name}.total", keepdims=1)
    return graph.add("Add", [graph.add("Log", [total], f"{name}.log"), top], name)


def _write_two_layers(graph: Graph, x: str, name: str, layers: nn.Sequential) -> str:
    hidden = graph.linear(x, f"{name}.up", cast(nn.Linear, layers[0]))
    hidden = graph.add("Relu", [hidden], f"{name}.relu")
    return graph.linear(hidden, f"{name}.down", cast(nn.Linear, layers[2]))
