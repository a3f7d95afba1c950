"""MixVPR (Ali-bey et al., WACV 2023): small networks that mix every channel over the whole frame.

Mixing needs the whole grid of tokens: a backbone with this head drops none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.layers import NORM_EPS, Gate
from tatvpr_edge.spec.errors import ModelError, UsageError

if TYPE_CHECKING:
    from tatvpr_edge.models.export.graph import Graph


class Mixer(nn.Module):
    """One mixing layer over the token axis."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(patches, eps=NORM_EPS)
        self.up, self.down = nn.Linear(patches, patches), nn.Linear(patches, patches)
        # A fresh layer changes little.
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, patches] -> [B, C, patches]``."""
        return cast(Tensor, x + self.down(F.relu(self.up(self.norm(x)))))


class MixVPRHead(nn.Module):
    """Mixed maps, projected over channels and over the frame, at unit length.

    Args:
        channels, rows: the descriptor has ``channels * rows`` numbers.
        layers: mixing layers.
    """

    needs_every_token = True
    patches_only = True

    def __init__(
        self, backbone: ViTConfig, channels: int = 1024, rows: int = 4, layers: int = 4
    ) -> None:
        super().__init__()
        if backbone.keep_after:
            raise ModelError("mixvpr needs every token: set keep_after = 0")
        self.mixers = nn.ModuleList(Mixer(backbone.patches) for _ in range(layers))
        self.channels = nn.Linear(backbone.dim, channels)
        self.rows = nn.Linear(backbone.patches, rows)
        self.size = channels * rows

    @staticmethod
    def macs(backbone: ViTConfig, tokens: int, channels: int, rows: int, layers: int) -> int:
        """Multiply-accumulates of one frame."""
        t = backbone.patches
        mixing = layers * 2 * t * t * backbone.dim
        return mixing + t * backbone.dim * channels + channels * t * rows

    def readers(self) -> list[nn.Module]:
        """Layers whose input columns are the channels of the backbone's tokens."""
        return [self.channels]

    def forward(self, tokens: Tensor, gate: Gate) -> Tensor:
        """``[B, T, D] -> [B, size]``."""
        x = tokens[:, 1:].transpose(1, 2)
        if x.shape[-1] != self.rows.in_features:
            raise UsageError(
                f"mixvpr takes {self.rows.in_features} patches, got {x.shape[-1]}: in training, "
                "distil.visible_share = 1 and metric.visible_share = 1 show it all of them"
            )
        for mixer in self.mixers:
            x = mixer(x)
        x = self.channels(x.transpose(1, 2)).transpose(1, 2)
        return F.normalize(self.rows(x).flatten(1), dim=-1)

    def write(self, graph: Graph, tokens: str) -> str:
        """Mixers, then the two projections."""
        x = graph.slice(tokens, "head.patches", 1, 0)
        x = graph.add("Transpose", [x], "head.maps", perm=[1, 0])
        for number, module in enumerate(self.mixers):
            mixer, name = cast(Mixer, module), f"head.mixers.{number}"
            hidden = graph.norm(x, f"{name}.norm", mixer.norm)
            hidden = graph.linear(hidden, f"{name}.up", mixer.up)
            hidden = graph.add("Relu", [hidden], f"{name}.relu")
            hidden = graph.linear(hidden, f"{name}.down", mixer.down)
            x = graph.add("Add", [x, hidden], f"{name}.residual")
        x = graph.add("Transpose", [x], "head.tokens", perm=[1, 0])
        x = graph.linear(x, "head.channels", self.channels)
        x = graph.add("Transpose", [x], "head.channels.turned", perm=[1, 0])
        x = graph.linear(x, "head.rows", self.rows)
        return graph.descriptor(x)
