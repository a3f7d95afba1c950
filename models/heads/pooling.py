"""CLS and GeM: the heads whose whole path is bit-identical on every CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.exact import gem, unit_length
from tatvpr_edge.models.nn.layers import Gate, TernaryLayer
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.reference import GEM_CLAMP

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph

#: GeM clamps its input here, so that the cube root has a gradient.
GEM_FLOOR = GEM_CLAMP


def projection(backbone: ViTConfig, project: int | None, row_scales: bool) -> TernaryLayer | None:
    """The optional ternary projection; never gated: it is small and every channel counts here."""
    if project is None:
        return None
    return TernaryLayer(
        backbone.dim,
        project,
        gated=False,
        row_scales=row_scales,
        ternary=backbone.ternary,
    )


class CLSHead(nn.Module):
    """The CLS token, projected if asked, at unit length.

    Args:
        project: channels after a ternary projection; None for the token as it is.
    """

    def __init__(self, backbone: ViTConfig, project: int | None = None) -> None:
        super().__init__()
        self.proj = projection(backbone, project, backbone.row_scales)
        self.size = project or backbone.dim

    @staticmethod
    def macs(backbone: ViTConfig, tokens: int, project: int | None = None) -> int:
        """Multiply-accumulates of one frame."""
        return backbone.dim * (project or 0)

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens; none without a
        projection: then the descriptor is made of those channels themselves.
        """
        return [] if self.proj is None else [self.proj]

    def forward(self, tokens: Tensor, gate: Gate) -> Tensor:
        """``[B, T, D] -> [B, size]``."""
        x = tokens[:, :1]
        if self.proj is not None:
            x = self.proj(x, gate)
        return unit_length(x[:, 0], self.training)

    def write(self, graph: Graph, tokens: str) -> str:
        """The same in ONNX."""
        x = graph.slice(tokens, "head.cls", 0, 1)
        return write_projected(graph, x, [] if self.proj is None else [self.proj])


class GeMHead(nn.Module):
    """Generalised mean (p = 3) over the patch tokens, projected if asked, at unit length.

    The mean is positive everywhere; a projection makes descriptors whose signs carry information,
    which binary place maps need.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018.

    Args:
        project: numbers in a descriptor; None for the mean as it is.
        digits: ternary matrices whose sum is the projection, one scale a row. One is coarse; three
            hold a whitening to 2 % of its values, in operators that every backend has.
    """

    def __init__(self, backbone: ViTConfig, project: int | None = None, digits: int = 1) -> None:
        super().__init__()
        if digits < 1 or (digits > 1 and project is None):
            raise ModelError(f"head gem: digits is {digits}: 1 or more, and needs project")
        self.proj = projection(backbone, project, row_scales=backbone.row_scales or digits > 1)
        finer = [projection(backbone, project, row_scales=True) for _ in range(1, digits)]
        self.finer = nn.ModuleList(layer for layer in finer if layer is not None)
        self.size = project or backbone.dim

    @staticmethod
    def macs(backbone: ViTConfig, tokens: int, project: int | None = None, digits: int = 1) -> int:
        """Multiply-accumulates of one frame."""
        return backbone.dim * (project or 0) * digits

    @torch.no_grad()
    def shares(self, tokens: Tensor) -> Tensor:
        """What each patch brings to the descriptor: ``[B, T, D] -> [B, T - 1]``, sums of 1.

        A channel's patches share its mean of cubes; channels count as much as they say.
        """
        cubes = tokens[:, 1:].float().clamp_min(GEM_FLOOR) ** 3
        said = cubes.mean(1, keepdim=True) ** (1 / 3)
        brought = (cubes / cubes.sum(1, keepdim=True) * said).sum(2)
        return brought / brought.sum(1, keepdim=True)

    def pooled(self, tokens: Tensor) -> Tensor:
        """What is projected: ``[B, T, D] -> [B, D]``."""
        return gem(tokens[:, 1:], self.training)

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens; none without a
        projection: then the descriptor is made of those channels themselves.
        """
        return [] if self.proj is None else [self.proj]

    def forward(self, tokens: Tensor, gate: Gate) -> Tensor:
        """``[B, T, D] -> [B, size]``."""
        pooled = self.pooled(tokens)[:, None]
        x = pooled if self.proj is None else self.proj(pooled, gate)
        for layer in self.finer:
            x = layer(pooled, gate) + x
        return unit_length(x[:, 0], self.training)

    def write(self, graph: Graph, tokens: str) -> str:
        """The same in ONNX."""
        x = graph.slice(tokens, "head.patches", 1, 0)
        floor = graph.weight("head.gem.floor", np.array(GEM_FLOOR, dtype=np.float32))
        power = graph.weight("head.gem.power", np.array(3.0, dtype=np.float32))
        root = graph.weight("head.gem.root", np.array(1.0 / 3.0, dtype=np.float32))
        x = graph.add("Clip", [x, floor], "head.gem.clip")
        x = graph.add("Pow", [x, power], "head.gem.cube")
        x = graph.add("ReduceMean", [x, graph.axes(0)], "head.gem.mean", keepdims=1)
        x = graph.add("Pow", [x, root], "head.gem")
        return write_projected(graph, x, [] if self.proj is None else [self.proj, *self.finer])


def write_projected(graph: Graph, x: str, layers: Iterable[nn.Module]) -> str:
    """``x [1, D]``, projected by the sum of ``layers`` if there are any, as one unit vector."""
    projected = x
    for number, layer in enumerate(layers):
        assert isinstance(layer, TernaryLayer)
        name = "head.proj" if number == 0 else f"head.finer.{number - 1}"
        part = graph.ternary(x, name, layer)
        projected = part if number == 0 else graph.add("Add", [part, projected], f"{name}.sum")
    return graph.descriptor(projected)
