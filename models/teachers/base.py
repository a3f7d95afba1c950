"""What stage 1 learns from: one interface for every teacher."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Teacher(Protocol):
    """A frozen network that sees places well.

    Attributes:
        name: for cards and logs.
        image_px: side of the square frames it takes.
        channels: channels of its feature map.
    """

    name: str
    image_px: int
    channels: int

    def features(self, frames: Tensor) -> Tensor:
        """``uint8 [B, image_px, image_px, 3] -> float32 [B, rows, columns, channels]``."""

    def descriptors(self, features: Tensor) -> Tensor:
        """Feature maps to unit descriptors ``[B, size]``."""

    def card(self) -> dict[str, Any]:
        """Where its weights come from: name, source, licence, SHA-256."""
