"""What a network is made of: one frozen record for the backbone, one for the head, one for both.

A configuration fixes every shape. It is stored with checkpoints and inside exported ONNX files, so
that a file can be refused when it was made for another architecture.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tatvpr_edge.spec.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SCOPES = ("token", "image")


@dataclass(frozen=True)
class ViTConfig:
    """A ternary, top-k gated Vision Transformer.

    Attributes:
        image_px: side of the square frame, in pixels; a multiple of ``patch``.
        patch: side of a patch, in pixels.
        dim: channels of a token; a multiple of ``heads`` and of ``group``.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP, as a multiple of ``dim``.
        mlp_norm: a LayerNorm before the second MLP matrix (as in the paper).
        keep_after: ``KeepTokens`` stands after this many blocks; 0 for a network without it.
        group: neighbouring channels that the gate keeps or drops together.
        scope: "token" ranks the channels of each token, "image" ranks them once for a frame.
        row_scales: one ternary scale for each output row instead of one for a matrix.
        ternary: False is the float twin: the same network in full precision, without gates.
        mean, std: colour statistics in 0..1, folded into the patch embedding.
    """

    image_px: int = 224
    patch: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    mlp_norm: bool = True
    keep_after: int = 3
    group: int = 1
    scope: str = "token"
    row_scales: bool = False
    ternary: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        positive = ("image_px", "patch", "dim", "depth", "heads", "mlp_ratio", "group")
        for name in positive:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ModelError(f"{name} is {value!r}: it must be a positive integer")
        if self.image_px % self.patch:
            raise ModelError(f"image_px {self.image_px} is not a multiple of patch {self.patch}")
        if self.dim % self.heads:
            raise ModelError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.dim % self.group:
            raise ModelError(f"dim {self.dim} is not a multiple of group {self.group}")
        if self.scope not in SCOPES:
            raise ModelError(f"scope {self.scope!r} is not one of {', '.join(SCOPES)}")
        if not 0 <= self.keep_after < self.depth:
            raise ModelError(
                f"keep_after {self.keep_after} must be below depth {self.depth} (0: no KeepTokens)"
            )
        if self.patch_values * 127 * 128 >= 2**31:
            raise ModelError(f"patch {self.patch} overflows the 32-bit sums of PatchEmbed")

    @property
    def patches(self) -> int:
        """Patch tokens of a frame, before ``KeepTokens``."""
        return (self.image_px // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of a frame, CLS included, before ``KeepTokens``."""
        return self.patches + 1

    @property
    def patch_values(self) -> int:
        """Colour values in one patch."""
        return self.patch * self.patch * 3

    @property
    def mlp_dim(self) -> int:
        """Hidden channels of the MLP."""
        return self.dim * self.mlp_ratio


@dataclass(frozen=True)
class HeadConfig:
    """Which head, and its options by name (see the module of each head in ``models/heads``)."""

    kind: str = "cls"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """A whole model: name, backbone and head."""

    name: str
    backbone: ViTConfig
    head: HeadConfig

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ModelError: a key is missing or unknown, or a value is out of range.
        """
        try:
            return cls(
                name=str(values["name"]),
                backbone=ViTConfig(**values["backbone"]),
                head=HeadConfig(**values["head"]),
            )
        except (KeyError, TypeError) as error:
            raise ModelError(f"not a model configuration: {error}") from error

    def same_weights(self, other: ModelConfig) -> list[str]:
        """Names of the settings in which ``other`` needs other weights; empty where it fits."""
        mine, theirs = self.to_dict(), other.to_dict()
        differing = []
        for part in ("backbone", "head"):
            for key in sorted(set(mine[part]) | set(theirs[part])):
                # The gate has no weights: a checkpoint may be run with another gate or precision.
                if part == "backbone" and key in ("group", "scope", "ternary", "keep_after"):
                    continue
                if mine[part].get(key) != theirs[part].get(key):
                    differing.append(f"{part}.{key}")
        return differing
