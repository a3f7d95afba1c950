"""A model of ours as the teacher: what it says at k = 1, for students of its own kind.

A student that starts from the same weights learns to say at low k what it said at k = 1
(Yu and Huang, "Universally Slimmable Networks", 2019, call this inplace distillation; the teacher
here is frozen, so that nothing can pull both together into one point).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tatvpr_edge.models.checkpoint import load_weights
from tatvpr_edge.models.heads import patch_heads
from tatvpr_edge.models.nn.vit import Seen
from tatvpr_edge.spec.errors import ModelError


class OwnModel:
    """The last tokens of trained weights as the map, and their descriptors, at k = 1.

    Raises:
        ModelError: the file is no model of ours, or its head needs more than the map.
    """

    def __init__(self, path: Path) -> None:
        # Training's arithmetic: three times as fast as the artifact's bytes, and as its student's.
        self.model = load_weights(path).train().requires_grad_(False)
        if self.model.config.head.kind not in patch_heads():
            raise ModelError(
                f"{path}: as a teacher, a model needs a head that sees patches only "
                f"({', '.join(patch_heads())}), this one has {self.model.config.head.kind}"
            )
        backbone = self.model.config.backbone
        self.name = f"{self.model.config.name} at k = 1"
        self.image_px, self.channels = backbone.image_px, backbone.dim
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """``uint8 [B, image_px, image_px, 3] -> float32 [B, rows, columns, dim]``."""
        tokens = self.model.see(frames, self.model.gate(len(frames), 1.0, 1.0)).tokens
        side = self.image_px // self.model.config.backbone.patch
        return tokens[:, 1:].unflatten(1, (side, side))

    @torch.no_grad()
    def descriptors(self, features: Tensor) -> Tensor:
        """The model's own descriptors, unit length."""
        patches = features.flatten(1, 2)
        tokens = torch.cat([patches[:, :1], patches], 1)  # the head never looks at the first
        count, rows, columns, _ = features.shape
        own = self.image_px // self.model.config.backbone.patch
        # A map of another grid: each cell is where the model's own patch at its place is.
        down, across = ((2 * torch.arange(n) + 1) * own // (2 * n) for n in (rows, columns))
        where = (down[:, None] * own + across).flatten().to(features.device)
        seen = Seen(tokens, where.expand(count, -1))
        return self.model.describe(seen, self.model.gate(len(tokens), 1.0, 1.0))

    def card(self) -> dict[str, Any]:
        """Which weights these are."""
        return {
            "name": self.name,
            "source": "trained with tatvpr-edge train",
            "licence": "that of the weights",
            "sha256": self._sha256,
        }
