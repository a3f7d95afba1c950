"""CLS and GeM: the heads whose whole path is bit-identical on every CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.exact import gem, unit_length
from tatvpr_edge.models.nn.layers import Gate, TernaryLayer
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.reference import GEM_CLAMP

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph


def projection(
    backbone: ViTConfig, project: int | None, row_scales: bool, bias: bool = True
) -> TernaryLayer | None:
    """The optional ternary projection; never gated: it is small and every channel counts here."""
    if project is None:
        return None
    return TernaryLayer(
        backbone.dim,
        project,
        bias=bias,
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
    def macs(backbone: ViTConfig, tokens: int, project: int | None) -> int:
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

    A mean over patches does not know where in the frame a patch was: a mirrored corridor looks like
    the corridor. With ``sides`` a second mean, in which patches count the more the further left
    they are, is projected too, as its difference from the first.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018; the second
    mean is a soft form of the spatial pyramid of Lazebnik et al., "Beyond Bags of Features", 2006.

    Args:
        project: numbers in a descriptor; None for the mean as it is.
        digits: ternary matrices whose sum is the projection, one scale a row. One is coarse; three
            hold a whitening to 2 % of its values, in operators that every backend has.
        sides: how far the weights of the second mean lie from 1, at the frame's left and right
            edge; up to 1, and 0 for no second mean.
    """

    left: Tensor | None
    patches_only = True

    def __init__(
        self,
        backbone: ViTConfig,
        project: int | None = None,
        digits: int = 1,
        sides: float = 0.0,
    ) -> None:
        super().__init__()
        if digits < 1 or (digits > 1 and project is None):
            raise ModelError(f"head gem: digits is {digits}: 1 or more, and needs project")
        if not 0 <= sides <= 1 or (sides > 0 and project is None):
            raise ModelError(f"head gem: sides is {sides}: 0 to 1, and needs project")
        self.proj = projection(backbone, project, row_scales=backbone.row_scales or digits > 1)
        finer = [projection(backbone, project, row_scales=True) for _ in range(1, digits)]
        self.finer = nn.ModuleList(layer for layer in finer if layer is not None)
        count = digits if sides else 0
        aside = [projection(backbone, project, row_scales=True, bias=False) for _ in range(count)]
        self.aside = nn.ModuleList(layer for layer in aside if layer is not None)
        self.sides, self.size = sides, project or backbone.dim
        weights = torch.from_numpy(left_weights(backbone, sides)) if sides else None
        self.register_buffer("left", weights, persistent=False)

    @staticmethod
    def macs(
        backbone: ViTConfig, tokens: int, project: int | None, digits: int, sides: float
    ) -> int:
        """Multiply-accumulates of one frame."""
        return backbone.dim * (project or 0) * digits * (2 if sides else 1)

    @torch.no_grad()
    def shares(self, tokens: Tensor) -> Tensor:
        """What each patch brings to the descriptor: ``[B, T, D] -> [B, T - 1]``, sums of 1.

        A channel's patches share its mean of cubes; channels count as much as they say.
        """
        cubes = tokens[:, 1:].float().clamp_min(GEM_CLAMP) ** 3
        said = cubes.mean(1, keepdim=True) ** (1 / 3)
        brought = (cubes / cubes.sum(1, keepdim=True) * said).sum(2)
        return brought / brought.sum(1, keepdim=True)

    def pooled(self, tokens: Tensor) -> Tensor:
        """What is projected: ``[B, T, D] -> [B, D]``."""
        return gem(tokens[:, 1:], self.training)

    def beside(self, tokens: Tensor, pooled: Tensor, patches: Tensor | None) -> Tensor:
        """What is projected beside it: the mean that favours the left less ``pooled``.

        Args:
            tokens: ``[B, T, D]``.
            pooled: ``[B, D]``, from :meth:`pooled`.
            patches: which patches those are, ``[B, T - 1]``; None for all, in order.
        """
        assert self.left is not None
        weights = self.left[None] if patches is None else self.left[patches]
        return gem(tokens[:, 1:], self.training, weights) - pooled

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens; none without a
        projection: then the descriptor is made of those channels themselves.
        """
        return [] if self.proj is None else [self.proj, *self.finer, *self.aside]

    def forward(self, tokens: Tensor, gate: Gate, patches: Tensor | None = None) -> Tensor:
        """``[B, T, D] -> [B, size]``; ``patches`` as for :meth:`beside`."""
        pooled = self.pooled(tokens)
        x = pooled[:, None] if self.proj is None else self.proj(pooled[:, None], gate)
        for layer in self.finer:
            x = layer(pooled[:, None], gate) + x
        if self.sides:
            beside = self.beside(tokens, pooled, patches)[:, None]
            for layer in self.aside:
                x = layer(beside, gate) + x
        return unit_length(x[:, 0], self.training)

    def table(self) -> NDArray[np.float32] | None:
        """What goes with the tokens through KeepTokens: the weight of each in the second mean,
        ``[T, 1]``, CLS included; None without one."""
        if self.left is None:
            return None
        weights = self.left.cpu().numpy()
        return np.concatenate([np.ones(1, np.float32), weights])[:, None]

    def write(self, graph: Graph, tokens: str, table: str | None = None) -> str:
        """The same in ONNX; ``table`` is what is left of :meth:`table`."""
        pooled = _write_gem(graph, tokens, "head.gem")
        layers = [] if self.proj is None else [self.proj, *self.finer]
        x = _write_sum(graph, pooled, layers)
        if table is not None:
            left = _write_gem(graph, tokens, "head.left", table)
            beside = graph.add("Sub", [left, pooled], "head.beside")
            x = _write_more(graph, beside, list(self.aside), "head.aside", x)
        return graph.descriptor(x)


def left_weights(backbone: ViTConfig, sides: float) -> NDArray[np.float32]:
    """The weight of each patch, ``[patches]``: towards 1 + ``sides`` at the frame's left edge and
    1 - ``sides`` at its right one, on a line; 1 on the mean."""
    columns = backbone.image_px // backbone.patch
    row = 1 + sides * (1 - (2 * np.arange(columns) + 1) / columns)
    return np.tile(row.astype(np.float32), columns)


def _write_gem(graph: Graph, tokens: str, name: str, table: str | None = None) -> str:
    """The generalised mean of the patches, ``[1, D]``; their cubes times ``table [T, 1]``."""
    x = graph.slice(tokens, f"{name}.patches", 1, 0)
    floor = graph.constant("head.gem.floor", np.array(GEM_CLAMP, dtype=np.float32))
    power = graph.constant("head.gem.power", np.array(3.0, dtype=np.float32))
    root = graph.constant("head.gem.root", np.array(1.0 / 3.0, dtype=np.float32))
    x = graph.add("Clip", [x, floor], f"{name}.clip")
    x = graph.add("Pow", [x, power], f"{name}.cube")
    if table is not None:
        weights = graph.slice(table, f"{name}.weights", 1, 0)
        x = graph.add("Mul", [x, weights], f"{name}.weighted")
    x = graph.add("ReduceMean", [x, graph.axes(0)], f"{name}.mean", keepdims=1)
    return graph.add("Pow", [x, root], name)


def write_projected(graph: Graph, x: str, layers: Sequence[nn.Module]) -> str:
    """``x [1, D]``, projected by the sum of ``layers`` if there are any, as one unit vector."""
    return graph.descriptor(_write_sum(graph, x, layers))


def _write_sum(graph: Graph, x: str, layers: Sequence[nn.Module]) -> str:
    if not layers:
        return x
    first, *finer = layers
    assert isinstance(first, TernaryLayer)
    return _write_more(graph, x, finer, "head.finer", graph.ternary(x, "head.proj", first))


def _write_more(graph: Graph, x: str, layers: Sequence[nn.Module], called: str, to: str) -> str:
    """``to`` with the projections of ``x [1, D]`` added."""
    for number, layer in enumerate(layers):
        assert isinstance(layer, TernaryLayer)
        name = f"{called}.{number}"
        to = graph.add("Add", [graph.ternary(x, name, layer), to], f"{name}.sum")
    return to
