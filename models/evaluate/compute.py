"""Multiply-accumulates of a model, counted from its configuration at a given k."""

from __future__ import annotations

from dataclasses import dataclass

from tatvpr_edge.models.nn.config import ModelConfig
from tatvpr_edge.spec.limits import kept


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one frame.

    Attributes:
        patch: patch embedding.
        ternary: gated ternary products, only kept activations counted.
        attention: products of queries with keys and of weights with values.
        head: the head.
    """

    patch: int
    ternary: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.patch + self.ternary + self.attention + self.head


def count_macs(config: ModelConfig, k: float, tokens: float = 1.0) -> Macs:
    """What one frame costs: a gated product reads only the channels that its gate keeps.

    Norms, activations and elementwise steps are not counted, as usual in this field.
    """
    b = config.backbone

    def gated(layer: str, outputs: int) -> int:
        width, group = b.inputs(layer), getattr(b.groups, layer)
        channels = kept(k, width // group) * group if b.ternary else width
        return channels * outputs

    each = (
        gated("qkv", 3 * b.dim)
        + gated("out", b.dim)
        + gated("up", b.mlp_dim)
        + gated("down", b.dim)
    )
    *counts, last = b.standing(tokens)
    return Macs(
        patch=b.patches * b.patch_values * b.dim,
        ternary=sum(count * each for count in counts),
        attention=sum(2 * count * count * b.dim for count in counts),
        head=_head(config, last),
    )


def _head(config: ModelConfig, tokens: int) -> int:
    from tatvpr_edge.models.heads import HEADS, whole_options

    options = whole_options(config.head)
    return int(HEADS[config.head.kind].macs(config.backbone, tokens, **options))
