"""SALAD (Izquierdo and Civera, CVPR 2024): tokens are assigned to clusters by optimal transport.

A dustbin takes tokens that belong nowhere. Its mass is ``log(max(n - m, 1))`` for ``n`` tokens and
``m`` clusters, so that small frames with more clusters than tokens have one too.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.layers import Gate

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

    def __init__(
        self,
        backbone: ViTConfig,
        clusters: int = 64,
        channels: int = 128,
        summary: int = 256,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        self.features = _two_layers(backbone.dim, hidden, channels)
        self.scores = _two_layers(backbone.dim, hidden, clusters)
        self.summary = _two_layers(backbone.dim, hidden, summary)
        self.dustbin = nn.Parameter(torch.ones(1))
        self.size = clusters * channels + summary

    @staticmethod
    def macs(
        backbone: ViTConfig,
        tokens: int,
        clusters: int = 64,
        channels: int = 128,
        summary: int = 256,
        hidden: int = 512,
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
