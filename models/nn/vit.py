"""The network: a ternary ViT with a head on it. Frames go in, descriptors come out.

model = create("micro").eval()
descriptors = model(frames, k=0.4)        # uint8 [B, H, W, 3] -> float32 [B, D], unit length
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tatvpr_edge.models.heads import build_head
from tatvpr_edge.models.nn.config import ModelConfig, ViTConfig
from tatvpr_edge.models.nn.exact import LayerNorm
from tatvpr_edge.models.nn.layers import NORM_EPS, Block, Gate, PatchEmbed
from tatvpr_edge.models.nn.quant import kept_tokens, take_tokens
from tatvpr_edge.spec.errors import FrameError, UsageError


class Seen(NamedTuple):
    """What the backbone makes of frames.

    Attributes:
        tokens: ``[B, T, D]``, CLS first, after the last norm.
        patches: which patch each token behind CLS is, int64 ``[B, T - 1]``; None: all, in order.
    """

    tokens: Tensor
    patches: Tensor | None


class ViT(nn.Module):
    """The backbone: frames to tokens, CLS first."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.empty(1, config.dim))
        self.pos_embed = nn.Parameter(torch.empty(config.tokens, config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.dim, eps=NORM_EPS)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(
        self,
        frames: Tensor,
        gate: Gate,
        visible: Tensor | None = None,
        looks: list[Tensor] | None = None,
    ) -> Seen:
        """``uint8 [B, H, W, 3]`` to tokens ``[B, tokens, D]``.

        Args:
            visible: numbers of the patches that the network sees, ``[B, n]`` (patch dropout, in
                training only); None for all.
            looks: what the CLS token looks at where tokens would be dropped is appended to it, a
                ``[B, patches]`` for each KeepTokens, while all tokens stand.
        """
        patches = self.patch_embed(frames)
        x = torch.cat([self.cls_token.expand(len(frames), 1, -1), patches], dim=1) + self.pos_embed
        if visible is not None:
            index = torch.cat([torch.zeros_like(visible[:, :1]), visible + 1], dim=1)
            x = take_tokens(x, index)
        standing = visible
        for number, block in enumerate(self.blocks, start=1):
            x, looked = block(x, gate)
            if number not in self.config.keep_after:
                continue
            if gate.tokens < 1:
                kept = kept_tokens(looked, gate.tokens)
                if kept is not None:
                    x, patches_kept = take_tokens(x, kept), kept[:, 1:] - 1
                    standing = (
                        patches_kept if standing is None else standing.gather(1, patches_kept)
                    )
            elif looks is not None:
                looks.append(looked[:, 1:])
        return Seen(cast(Tensor, self.norm(x)), standing)


class PlaceModel(nn.Module):
    """Backbone and head as one: what is trained, exported and evaluated.

    Attributes:
        trained: False for the random weights that a new model has. Files, artifacts and boards say
            so; ``tatvpr-edge train`` and weights files set it, a training loop of your own must.
    """

    trained: bool = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ViT(config.backbone)
        self.head = build_head(config.head, config.backbone)

    @property
    def descriptor_size(self) -> int:
        """Numbers in a descriptor."""
        return int(cast(int, self.head.size))

    def gate(
        self, count: int, k: float | Tensor, tokens: float = 1.0, q_factor: float = 1.0
    ) -> Gate:
        """The checked run-time knobs for ``count`` frames.

        Raises:
            UsageError: k or tokens is outside (0, 1].
        """
        device = self.backbone.cls_token.device
        ks = torch.as_tensor(k, dtype=torch.float32, device=device).expand(count)
        # Written so that NaN fails too.
        if not bool(((ks > 0) & (ks <= 1)).all()):
            bad = ks[~((ks > 0) & (ks <= 1))][0].item()
            raise UsageError(f"k is {bad}: it is the fraction kept and must be in (0, 1]")
        if not 0 < tokens <= 1:
            raise UsageError(f"tokens is {tokens}: it must be in (0, 1]")
        return Gate(ks, float(tokens), q_factor)

    def see(
        self,
        frames: Tensor,
        gate: Gate,
        visible: Tensor | None = None,
        looks: list[Tensor] | None = None,
    ) -> Seen:
        """``uint8 [B, H, W, 3]`` to tokens; see :meth:`ViT.forward`.

        Raises:
            FrameError: frames of another type or size than the model's.
        """
        side = self.config.backbone.image_px
        if frames.dtype != torch.uint8 or frames.shape[1:] != (side, side, 3):
            raise FrameError(
                f"frames are {frames.dtype} {tuple(frames.shape)}: "
                f"{self.config.name} takes uint8 (B, {side}, {side}, 3)"
            )
        return cast(Seen, self.backbone(frames, gate, visible, looks))

    def describe(self, seen: Seen, gate: Gate) -> Tensor:
        """Descriptors ``[B, descriptor_size]`` of what :meth:`see` saw."""
        if getattr(self.head, "sides", 0.0):
            return cast(Tensor, self.head(seen.tokens, gate, seen.patches))
        return cast(Tensor, self.head(seen.tokens, gate))

    def forward(
        self,
        frames: Tensor,
        k: float | Tensor = 1.0,
        tokens: float = 1.0,
        q_factor: float = 1.0,
    ) -> Tensor:
        """``uint8 [B, H, W, 3] -> float32 [B, descriptor_size]``, rows of unit length.

        Args:
            k: fraction of activations kept, one number or one for each frame ``[B]``.
            tokens: fraction of standing patch tokens kept by each KeepTokens.
            q_factor: see :class:`Gate`.
        """
        gate = self.gate(len(frames), k, tokens, q_factor)
        return self.describe(self.see(frames, gate), gate)
