"""DINOv2 ViT-B/14 with a BoQ head, from a checkpoint file that the user brings.

The public checkpoint of Bag-of-Queries (Ali-bey et al., CVPR 2024; release v1.0, file
``dinov2_12288.pth``) holds ``backbone.dino.*`` and ``aggregator.*``. The network is written here
so that its parameters carry those very names: nothing is downloaded, no code of a hub is run.
The weights are their authors' (see the licences of DINOv2 and Bag-of-Queries).
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tatvpr_edge.models.nn.config import IMAGENET_MEAN, IMAGENET_STD
from tatvpr_edge.spec.errors import ModelError
from tatvpr_edge.spec.shortage import refuse_shortage

PATCH_PX = 14
#: Side in patches of the position embeddings of the public DINOv2 weights (518 px).
STORED_SIDE = 37


@dataclass(frozen=True)
class DinoShape:
    """Width, depth and heads; the defaults are ViT-B/14."""

    dim: int = 768
    depth: int = 12
    heads: int = 12
    stored_side: int = STORED_SIDE


@dataclass(frozen=True)
class BoQShape:
    """The aggregator of the public checkpoint: descriptors of 384 * 32 = 12,288 numbers."""

    channels: int = 384
    queries: int = 64
    layers: int = 2
    rows: int = 32


class _LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        frames, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(frames, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(frames, tokens, dim)
        return cast(Tensor, self.proj(y))


class _MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = _Attention(dim, heads), _MLP(dim)
        self.ls1, self.ls2 = _LayerScale(dim), _LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + cast(Tensor, self.ls2(self.mlp(self.norm2(x))))


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH_PX, PATCH_PX)


class Dino(nn.Module):
    """DINOv2's transformer (Oquab et al., 2023), parameter names as published."""

    def __init__(self, shape: DinoShape) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + shape.stored_side**2, shape.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, shape.dim))  # stored, never used here
        self.patch_embed = _PatchEmbed(shape.dim)
        self.blocks = nn.ModuleList(_Block(shape.dim, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, H, W] -> [B, H / 14, W / 14, dim]``, without the last norm, as BoQ takes it."""
        patches = self.patch_embed.proj(x)
        rows, columns = patches.shape[2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = tokens + self._positions(rows, columns)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 1:].unflatten(1, (rows, columns))

    def _positions(self, rows: int, columns: int) -> Tensor:
        side = self.shape.stored_side
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # DINOv2 adds a tenth of a patch before it divides, so that sizes round as intended.
        factors = [(rows + 0.1) / side, (columns + 0.1) / side]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", antialias=False)
        return torch.cat([self.pos_embed[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class _BoQLayer(nn.Module):
    def __init__(self, shape: BoQShape) -> None:
        super().__init__()
        dim, heads = shape.channels, max(1, shape.channels // 64)
        self.encoder = nn.TransformerEncoderLayer(
            dim, heads, dim_feedforward=4 * dim, batch_first=True, dropout=0.0
        )
        self.queries = nn.Parameter(torch.randn(1, shape.queries, dim))
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoder(x)
        queries = self.queries.expand(len(x), -1, -1)
        queries = self.norm_q(queries + self.self_attn(queries, queries, queries)[0])
        return x, self.norm_out(self.cross_attn(queries, x, x)[0])


class BoQAggregator(nn.Module):
    """The published aggregator: a convolution, encoder layers with learned queries, a mixing."""

    def __init__(self, inputs: int, shape: BoQShape) -> None:
        super().__init__()
        self.proj_c = nn.Conv2d(inputs, shape.channels, 3, padding=1)
        self.norm_input = nn.LayerNorm(shape.channels)
        self.boqs = nn.ModuleList(_BoQLayer(shape) for _ in range(shape.layers))
        self.fc = nn.Linear(shape.layers * shape.queries, shape.rows)

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, rows, columns, C] -> [B, channels * rows]`` at unit length."""
        x = self.proj_c(maps.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        x = self.norm_input(x)
        outs = []
        for layer in self.boqs:
            x, out = layer(x)
            outs.append(out)
        mixed = self.fc(torch.cat(outs, dim=1).transpose(1, 2))
        return F.normalize(mixed.flatten(1), dim=-1)


class _Network(nn.Module):
    def __init__(self, dino: DinoShape, boq: BoQShape) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.dino = Dino(dino)
        self.aggregator = BoQAggregator(dino.dim, boq)


class DinoV2BoQ:
    """The paper's teacher, from the user's file.

    Args:
        path: ``.pth`` (read with ``weights_only``) or ``.safetensors``.
        image_px: side of its frames; a multiple of 14 (BoQ's authors evaluate at 322).

    Raises:
        ModelError: the file cannot be read, holds more than data, or its names or shapes are not
            those of the public checkpoint (the text names the first that differs).
    """

    name = "dinov2-boq"

    def __init__(
        self,
        path: Path,
        image_px: int = 322,
        dino: DinoShape | None = None,
        boq: BoQShape | None = None,
    ) -> None:
        if image_px % PATCH_PX:
            raise ModelError(f"{self.name}: {image_px} px is not a multiple of {PATCH_PX}")
        self.image_px = image_px
        dino = dino or DinoShape()
        self.channels = dino.dim
        self._path = path
        self._net = _Network(dino, boq or BoQShape())
        _load(self._net, path)
        self._net.eval().requires_grad_(False)
        self._mean = torch.tensor(IMAGENET_MEAN) * 255
        self._std = torch.tensor(IMAGENET_STD) * 255

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """``uint8 [B, H, W, 3] -> float32 [B, H / 14, W / 14, 768]``."""
        x = ((frames.float() - self._mean) / self._std).permute(0, 3, 1, 2)
        return cast(Tensor, cast(nn.Module, self._net.backbone.dino)(x))

    @torch.no_grad()
    def descriptors(self, features: Tensor) -> Tensor:
        """BoQ over the map: ``[B, 12288]``."""
        return cast(Tensor, self._net.aggregator(features))

    def card(self) -> dict[str, Any]:
        """Which file was used."""
        return {
            "name": self.name,
            "source": f"user's checkpoint {self._path.name}",
            "licence": "of the checkpoint",
            "sha256": hashlib.sha256(self._path.read_bytes()).hexdigest(),
        }


def _load(net: nn.Module, path: Path) -> None:
    tensors: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: refused: holds more than data (a pickle can run code)"
        ) from error
    except Exception as error:  # safetensors and torch raise many kinds for a damaged file
        refuse_shortage(error, f"{path}")
        raise ModelError(f"{path}: not a checkpoint that can be read ({error})") from error
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise ModelError(
            f"{path}: holds other things than named tensors: not a DINOv2-BoQ checkpoint "
            "(dinov2_12288)"
        )
    wanted = net.state_dict()
    for name, value in wanted.items():
        if name not in tensors:
            raise ModelError(f"{path}: has no {name}: not a DINOv2-BoQ checkpoint (dinov2_12288)")
        if tensors[name].shape != value.shape:
            raise ModelError(
                f"{path}: {name} is {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
            )
    extra = sorted(set(tensors) - set(wanted))
    if extra:
        raise ModelError(f"{path}: holds {extra[0]}, which DINOv2-BoQ has not")
    net.load_state_dict(tensors)
