"""Bag of Queries (Ali-bey et al., CVPR 2024): learned queries ask the tokens what the place is.

Departures from the published head: a linear layer instead of the 3 x 3 convolution before it, since
our tokens are already mixed over the frame, and pre-norm encoder layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.layers import NORM_EPS, Gate
from tatvpr_edge.spec.errors import ModelError

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph


class Attention(nn.Module):
    """Plain multi-head attention of queries ``[B, Q, C]`` over tokens ``[B, T, C]``."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.v, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """``[B, Q, C], [B, T, C] -> [B, Q, C]``."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, queries), (self.k, tokens), (self.v, tokens))
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return cast(Tensor, self.out((weights @ v).transpose(1, 2).flatten(-2)))


class BoQLayer(nn.Module):
    """One encoder layer over the tokens, and queries that read its result."""

    def __init__(self, channels: int, heads: int, queries: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)
        self.queries = nn.Parameter(torch.randn(1, queries, channels))
        self.query_attn = Attention(channels, heads)
        self.query_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.cross_attn = Attention(channels, heads)
        self.out_norm = nn.LayerNorm(channels, eps=NORM_EPS)

    def asked(self) -> Tensor:
        """The queries after they have seen each other ``[1, Q, C]``: a constant once trained."""
        q = self.queries
        return cast(Tensor, self.query_norm(q + self.query_attn(q, q)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, T, C] -> (tokens [B, T, C], answers [B, Q, C])``."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        queries = self.asked().expand(len(x), -1, -1)
        return x, self.out_norm(self.cross_attn(queries, x))


class BoQHead(nn.Module):
    """Queries of every layer, mixed into ``rows`` and flattened, at unit length.

    Args:
        channels: width of the head; None for the backbone's, at most 512.
        queries: learned queries of each layer.
        layers: encoder layers.
        rows: what the queries are mixed into; the descriptor has ``channels * rows`` numbers.
    """

    needs_every_token = True
    patches_only = True

    def __init__(
        self,
        backbone: ViTConfig,
        channels: int | None = None,
        queries: int = 64,
        layers: int = 2,
        rows: int = 32,
    ) -> None:
        super().__init__()
        channels = channels or min(512, backbone.dim)
        heads = max(1, channels // 64)
        if channels % heads:
            raise ModelError(f"boq: channels {channels} is not a multiple of its {heads} heads")
        self.proj = nn.Linear(backbone.dim, channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.layers = nn.ModuleList(BoQLayer(channels, heads, queries) for _ in range(layers))
        self.mix = nn.Linear(layers * queries, rows)
        self.size = channels * rows

    @staticmethod
    def macs(
        backbone: ViTConfig, tokens: int, channels: int | None, queries: int, layers: int, rows: int
    ) -> int:
        """Multiply-accumulates of one frame."""
        c, t = channels or min(512, backbone.dim), tokens - 1
        each = 12 * t * c * c + 2 * t * t * c  # encoder layer
        each += 2 * t * c * c + 2 * queries * t * c + queries * c * c  # cross-attention
        return t * backbone.dim * c + layers * each + layers * queries * rows * c

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens."""
        return [self.proj]

    def forward(self, tokens: Tensor, gate: Gate) -> Tensor:
        """``[B, T, D] -> [B, size]``."""
        x = self.norm(self.proj(tokens[:, 1:]))
        answers = []
        for layer in self.layers:
            x, answer = layer(x)
            answers.append(answer)
        mixed = self.mix(torch.cat(answers, dim=1).transpose(1, 2))
        return F.normalize(mixed.flatten(1), dim=-1)

    def write(self, graph: Graph, tokens: str) -> str:
        """The queries' own attention is a constant after training and is folded."""
        x = graph.slice(tokens, "head.patches", 1, 0)
        x = graph.norm(graph.linear(x, "head.proj", self.proj), "head.norm", self.norm)
        answers = []
        for number, module in enumerate(self.layers):
            layer, name = cast(BoQLayer, module), f"head.layers.{number}"
            normed = graph.norm(x, f"{name}.norm1", layer.norm1)
            q = graph.linear(normed, f"{name}.attn.q", layer.attn.q)
            attended = _attend(graph, q, normed, f"{name}.attn", layer.attn)
            x = graph.add("Add", [x, attended], f"{name}.residual1")
            hidden = graph.norm(x, f"{name}.norm2", layer.norm2)
            hidden = graph.linear(hidden, f"{name}.up", layer.up)
            hidden = graph.add("Gelu", [hidden], f"{name}.gelu", approximate="none")
            hidden = graph.linear(hidden, f"{name}.down", layer.down)
            x = graph.add("Add", [x, hidden], f"{name}.residual2")
            asked = graph.weight(f"{name}.asked", layer.cross_attn.q(layer.asked())[0])
            answer = _attend(graph, asked, x, f"{name}.cross", layer.cross_attn)
            answers.append(graph.norm(answer, f"{name}.out_norm", layer.out_norm))
        joined = graph.add("Concat", answers, "head.answers", axis=0)
        turned = graph.add("Transpose", [joined], "head.turned", perm=[1, 0])
        mixed = graph.linear(turned, "head.mix", self.mix)
        return graph.descriptor(mixed)


def _attend(graph: Graph, q: str, tokens: str, name: str, layer: Attention) -> str:
    """Projected queries ``[Q, C]`` over ``tokens [T, C]``."""
    heads, width = layer.heads, layer.q.out_features // layer.heads

    def split(x: str, part: str, perm: list[int]) -> str:
        x = graph.reshape(x, f"{name}.{part}.split", [-1, heads, width])
        return graph.add("Transpose", [x], f"{name}.{part}.heads", perm=perm)

    queries = split(q, "q", [1, 0, 2])
    keys = split(graph.linear(tokens, f"{name}.k", layer.k), "k", [1, 2, 0])
    values = split(graph.linear(tokens, f"{name}.v", layer.v), "v", [1, 0, 2])
    scale = graph.weight(f"{name}.scale", np.array(width**-0.5, dtype=np.float32))
    logits = graph.add("MatMul", [queries, keys], f"{name}.logits")
    logits = graph.add("Mul", [logits, scale], f"{name}.scaled")
    weights = graph.add("Softmax", [logits], f"{name}.weights", axis=-1)
    y = graph.add("MatMul", [weights, values], f"{name}.mixed")
    y = graph.add("Transpose", [y], f"{name}.joined", perm=[1, 0, 2])
    y = graph.reshape(y, f"{name}.flat", [-1, heads * width])
    return graph.linear(y, f"{name}.out", layer.out)
