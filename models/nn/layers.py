"""The parts of the transformer: ternary linear, patch embedding, attention, MLP, block.

Each is a small module over ``[B, T, D]``. ``Gate`` carries what a user turns at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import ViTConfig
from tatvpr_edge.models.nn.exact import LayerNorm, gelu
from tatvpr_edge.models.nn.quant import EXACT_FLOAT32, TernaryLinear, quant_attention, round_ste

#: LayerNorm's epsilon, in every network and kernel.
NORM_EPS = 1e-6


@dataclass(frozen=True)
class Gate:
    """The run-time knobs of one forward pass.

    Attributes:
        k: fraction of activations kept by each frame, ``[B]``.
        tokens: fraction of standing patch tokens kept by each KeepTokens.
        q_factor: 1 for quantised values, 0 for full precision, between them a blend (warm-up).
    """

    k: Tensor
    tokens: float = 1.0
    q_factor: float = 1.0


class TernaryLayer(nn.Module):
    """A linear layer ``[.., K] -> [.., N]`` that keeps a float master of its ternary weights.

    Args:
        gated: False for a layer that always sees all of its input (k = 1).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        gated: bool = True,
        group: int = 1,
        scope: str = "token",
        row_scales: bool = False,
        ternary: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gated, self.group, self.scope = gated, group, scope
        self.row_scales, self.ternary = row_scales, ternary
        nn.init.normal_(self.weight, std=(2.0 / (inputs + outputs)) ** 0.5)

    def forward(self, x: Tensor, gate: Gate) -> Tensor:
        """``x [B, T, K] -> [B, T, N]``."""
        if not self.ternary:
            return F.linear(x, self.weight, self.bias)
        k = gate.k if self.gated else torch.ones_like(gate.k)
        y: Tensor = TernaryLinear.apply(
            x, self.weight, self.bias, k, self.group, self.scope, self.row_scales, gate.q_factor
        )
        return y


class PatchEmbed(nn.Module):
    """Pixels to tokens, trained through the 8-bit weights that are deployed."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.dim, config.patch_values))
        self.bias = nn.Parameter(torch.zeros(config.dim))
        nn.init.normal_(self.weight, std=(2.0 / (config.dim + config.patch_values)) ** 0.5)
        repeat = config.patch * config.patch
        for name, values in (("mean", config.mean), ("std", config.std)):
            colours = torch.tensor(values, dtype=torch.float64).repeat(repeat)
            self.register_buffer(name, colours, persistent=False)

    def quantised(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is deployed: whole numbers ``W [D, P*P*3]``, ``scale [D]``, ``bias [D]``."""
        # In float64 throughout, as spec.reference.quantise_patch_embed: the same bits.
        scaled = self.weight.double() / (255.0 * self.std)
        largest = scaled.detach().abs().amax(1)
        scale = torch.where(largest > 0, largest / 127.0, torch.ones_like(largest)).float()
        w = round_ste(scaled / scale[:, None].double()).clamp(-127, 127)
        shift = (w * (128.0 - 255.0 * self.mean)).sum(1)
        bias = (self.bias.double() + scale.double() * shift).float()
        return w.float(), scale, bias

    def patches(self, frames: Tensor) -> Tensor:
        """``uint8 [B, H, W, 3]`` -> ``[B, patches, P*P*3]``, as (row, column, channel)."""
        side, patch = self.config.image_px // self.config.patch, self.config.patch
        grid = frames.view(len(frames), side, patch, side, patch, 3).permute(0, 1, 3, 2, 4, 5)
        return grid.reshape(len(frames), side * side, self.config.patch_values)

    def forward(self, frames: Tensor) -> Tensor:
        """``uint8 [B, H, W, 3] -> [B, patches, D]``."""
        pixels = self.patches(frames)
        if not self.config.ternary:
            colours = (pixels.float() / 255.0 - self.mean.float()) / self.std.float()
            return F.linear(colours, self.weight, self.bias)
        w, scale, bias = self.quantised()
        wide = 127 * 128 * self.config.patch_values >= EXACT_FLOAT32
        kind = torch.float64 if wide else torch.float32
        acc = torch.matmul(pixels.to(kind) - 128, w.to(kind).T).float()
        return acc * scale + bias


class Attention(nn.Module):
    """Gated ternary projections around 8-bit attention."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.ternary = config.heads, config.ternary
        self.qkv = _layer(config, "qkv", 3 * config.dim, bias=False)
        self.out = _layer(config, "out", config.dim)

    def forward(self, x: Tensor, gate: Gate) -> tuple[Tensor, Tensor]:
        """``x [B, T, D] -> (y [B, T, D], A [B, T])``."""
        qkv = self.qkv(x, gate)
        if self.ternary:
            y, looked = quant_attention(qkv, self.heads, exact=not self.training)
        else:
            y, looked = _float_attention(qkv, self.heads)
        return self.out(y, gate), looked


class MLP(nn.Module):
    """``D -> mlp_ratio * D -> D`` with GELU (erf) and, if configured, a LayerNorm in the middle."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.up = _layer(config, "up", config.mlp_dim)
        self.norm = LayerNorm(config.mlp_dim, eps=NORM_EPS) if config.mlp_norm else None
        self.down = _layer(config, "down", config.dim)

    def forward(self, x: Tensor, gate: Gate) -> Tensor:
        """``x [B, T, D] -> [B, T, D]``."""
        hidden = gelu(self.up(x, gate), self.training)
        if self.norm is not None:
            hidden = self.norm(hidden)
        y: Tensor = self.down(hidden, gate)
        return y


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.dim, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = LayerNorm(config.dim, eps=NORM_EPS)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, gate: Gate) -> tuple[Tensor, Tensor]:
        """``x [B, T, D] -> (x [B, T, D], A [B, T])``."""
        y, looked = self.attn(self.norm1(x), gate)
        x = x + y
        return x + self.mlp(self.norm2(x), gate), looked


def _layer(config: ViTConfig, name: str, outputs: int, bias: bool = True) -> TernaryLayer:
    return TernaryLayer(
        config.inputs(name),
        outputs,
        bias=bias,
        group=getattr(config.groups, name),
        scope=config.scope,
        row_scales=config.row_scales,
        ternary=config.ternary,
    )


def _float_attention(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    frames, tokens, width = qkv.shape
    q, k, v = qkv.view(frames, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
    y = (weights @ v).transpose(1, 2).reshape(frames, tokens, width // 3)
    return y, weights[:, :, 0].sum(1).detach()
